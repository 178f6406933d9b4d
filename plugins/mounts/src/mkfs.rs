//! `mkfs/..`: a file with a file system in it, made before it is attached to a loop device.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use gantry_core::mount::Mount;
use gantry_core::{Error, Result, ResultExt};
use gantry_sys::Spawn;
use gantry_sys::process::Capture;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ftruncate, linkat, openat};
use tokio::runtime::Handle;

use crate::roots::{Place, Roots};

/// Source: containerd's documentation of mounts.
const PREFIX: &str = "X-containerd.mkfs.";
/// What ext4 with its default blocks can have.
const MAX_SIZE_BYTES: u64 = 16 << 40;
/// How long the program may take. It writes tables, not data.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Makes the entry's source unless it is there, and gives the entry without the options for that. Blocks.
pub(crate) fn mkfs(mut entry: Mount, roots: &Roots, runtime: &Handle) -> Result<Mount> {
    let place = roots.place(&entry.source, "mkfs")?;
    let (wanted, left) = Wanted::parse(std::mem::take(&mut entry.options))?;
    entry.options = left;
    if place.existing(OFlags::PATH)?.is_none() {
        wanted.make(&place, runtime).with_context(|| format!("make a file system in {:?}", entry.source))?;
    }
    Ok(entry)
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    size_bytes: u64,
    program: String,
    args: Vec<String>,
}

impl Wanted {
    fn parse(options: Vec<String>) -> Result<(Wanted, Vec<String>)> {
        let (mut size_bytes, mut kind, mut uuid) = (0, "ext4".to_owned(), String::new());
        let mut left = Vec::with_capacity(options.len());
        for option in options {
            let Some(wanted) = option.strip_prefix(PREFIX) else {
                left.push(option);
                continue;
            };
            match wanted.split_once('=') {
                Some(("size", value)) => {
                    size_bytes = size(value).ok_or_else(|| {
                        Error::invalid_argument(format!("mount option {option:?}: no size up to 16 TiB"))
                    })?;
                }
                Some(("fs", value)) => kind = value.to_owned(),
                Some(("uuid", value)) => uuid = value.to_owned(),
                _ => return Err(Error::invalid_argument(format!("unknown mount option {option:?}"))),
            }
        }
        if size_bytes == 0 {
            return Err(Error::invalid_argument("mkfs requires mkfs.size option"));
        }
        // It goes on a command line.
        if !uuid.is_empty() && !is_uuid(&uuid) {
            return Err(Error::invalid_argument(format!("mount option {PREFIX}uuid={uuid:?}: no uuid")));
        }
        let mut args = vec!["-q".to_owned()];
        match kind.as_str() {
            "ext2" | "ext3" | "ext4" if uuid.is_empty() => {}
            "ext2" | "ext3" | "ext4" => args.extend(["-U".to_owned(), uuid]),
            "xfs" if uuid.is_empty() => {}
            "xfs" => args.extend(["-m".to_owned(), format!("uuid={uuid}")]),
            _ => return Err(Error::invalid_argument(format!("unsupported filesystem {kind:?}"))),
        }
        Ok((Wanted { size_bytes, program: format!("mkfs.{kind}"), args }, left))
    }

    /// The file has its name only once it is complete.
    fn make(&self, place: &Place, runtime: &Handle) -> Result<()> {
        let (parent, name) = place.parent()?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(&parent, ".", flags, Mode::from_raw_mode(0o640)).map_err(io::Error::from)?;
        let file = File::from(file);
        ftruncate(&file, self.size_bytes).map_err(io::Error::from).context("set its size")?;
        let copy = file.try_clone().context("copy a descriptor")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let spawn = Spawn::new(&self.program).args(&self.args).arg("/proc/self/fd/3");
        let spawn = spawn.descriptor(copy, 3).env("PATH", path);
        let capture = Capture { timeout: Some(TIMEOUT), max_stderr_bytes: 4096, ..Capture::default() };
        let output = runtime.block_on(spawn.output(capture)).with_context(|| self.program.clone())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::unknown(format!("{} failed: {}: {said}", self.program, output.status)));
        }
        file.sync_all().context("sync it")?;
        let made = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, &*made, &parent, name, AtFlags::SYMLINK_FOLLOW)
            .map_err(io::Error::from)
            .with_context(|| format!("name it {}", name.display()))
    }
}

/// A number of bytes with a binary unit: `100`, `10k`, `1.5GiB`, `2 TB`. Source: containerd's documentation of mounts.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * f64::from(1u32 << 10).powi(shift / 10);
    (bytes <= MAX_SIZE_BYTES as f64).then_some(bytes as u64)
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    fn parse(options: &[&str]) -> Result<(Wanted, Vec<String>)> {
        Wanted::parse(options.iter().map(|option| option.replace("mkfs.", PREFIX)).collect())
    }

    #[test]
    fn options_make_a_command_line() {
        let uuid = "550e8400-e29b-41d4-a716-446655440000";
        let (wanted, left) = parse(&["mkfs.size=100MiB", "ro", &format!("mkfs.uuid={uuid}")]).unwrap();
        assert_eq!((wanted.program.as_str(), wanted.size_bytes), ("mkfs.ext4", 100 << 20));
        assert_eq!((wanted.args, left), (vec!["-q".into(), "-U".into(), uuid.into()], vec!["ro".to_owned()]));
        let (wanted, _) = parse(&["mkfs.size=1g", "mkfs.fs=xfs", &format!("mkfs.uuid={uuid}")]).unwrap();
        assert_eq!(wanted.args, ["-q".to_owned(), "-m".into(), format!("uuid={uuid}")]);
        for bad in [
            &["ro"][..],
            &["mkfs.size=0"],
            &["mkfs.size=x"],
            &["mkfs.size=17T"],
            &["mkfs.size=1g", "mkfs.fs=vfat"],
            &["mkfs.size=1g", "mkfs.fs=../ext4"],
            &["mkfs.size=1g", "mkfs.uuid=-n"],
            &["mkfs.size=1g", "mkfs.other=1"],
            &["mkfs.size=1g", "mkfs.quiet"],
        ] {
            assert_eq!(parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [
            ("7", 7),
            ("1k", 1024),
            ("1.5GiB", 3 << 29),
            ("2 MB", 2 << 20),
            ("1tb", 1 << 40),
            ("16T", 16 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "k", "-1", "1x", "1..2", "1e9g", "99999999999999999999t"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
