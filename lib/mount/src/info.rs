//! What is mounted: `/proc/self/mountinfo`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};

/// The longest line that is read. An overlay shows all its layers, and a path has 4096 bytes.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// One mount.
///
/// Source: proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id; reused after it is gone.
    pub id: u64,
    /// The id of the mount that it lies on.
    pub parent: u64,
    /// Major number of the device.
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// What of the file system is mounted: `/`, or the directory or file that a bind mount shows.
    pub root: PathBuf,
    /// Where, from this process's root.
    pub mount_point: PathBuf,
    /// The mount's own options, comma separated.
    pub options: String,
    /// Tags like `shared:1` and `master:2`.
    pub tags: Vec<String>,
    /// The type, for example `overlay`.
    pub kind: String,
    /// What is mounted: a device, or whatever the mount call said.
    pub source: OsString,
    /// The file system's options, comma separated.
    pub super_options: String,
}

/// Reads the mounts of this process's mount namespace one by one, lowest first.
///
/// # Errors
/// When `/proc` is missing; each item when its line is no mount.
pub fn mounts() -> Result<impl Iterator<Item = Result<MountInfo>>> {
    // The calling thread's, which may have entered another mount namespace.
    const PATH: &str = "/proc/thread-self/mountinfo";
    let file = File::open(PATH).with_context(|| format!("open {PATH}"))?;
    Ok(parse_all(BufReader::new(file)))
}

fn parse_all(mut reader: impl BufRead) -> impl Iterator<Item = Result<MountInfo>> {
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let mut line = Vec::new();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let parsed = match read {
            Ok(0) => return None,
            Ok(_) => parse(&line),
            Err(error) => Err(Error::io(error).context("read mountinfo")),
        };
        failed = parsed.is_err();
        Some(parsed)
    })
}

fn parse(line: &[u8]) -> Result<MountInfo> {
    let parts = || -> Option<MountInfo> {
        let mut fields = line.strip_suffix(b"\n").unwrap_or(line).split(|byte| *byte == b' ');
        let mut next = || fields.next();
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
        let id = number(next()?)?;
        let parent = number(next()?)?;
        let device = std::str::from_utf8(next()?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let root = unescape(next()?).into();
        let mount_point = unescape(next()?).into();
        let options = text(next()?);
        let mut tags = Vec::new();
        loop {
            match next()? {
                b"-" => break,
                tag => tags.push(text(tag)),
            }
        }
        let kind = text(next()?);
        let source = unescape(next()?);
        let super_options = text(next()?);
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(MountInfo {
            id,
            parent,
            major,
            minor,
            root,
            mount_point,
            options,
            tags,
            kind,
            source,
            super_options,
        })
    };
    parts().ok_or_else(|| {
        let start = &line[..line.len().min(200)];
        Error::internal(format!("mountinfo line {:?}", String::from_utf8_lossy(start)))
    })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(unescape(field).as_bytes()).into_owned()
}

/// Decodes `\040` and the like: space, tab, newline, backslash and `#` are written in octal.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits =
            field.get(at + 1..at + 4).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (field[at], digits) {
            (b'\\', Some(&[a, b, c])) if a <= b'3' => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                at += 4;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The mounts at `path` and below it, lowest first.
///
/// # Errors
/// As [`mounts`].
pub fn mounts_below(path: &Path) -> Result<Vec<MountInfo>> {
    let mut below = Vec::new();
    for mount in mounts()? {
        let mount = mount?;
        if mount.mount_point.starts_with(path) {
            below.push(mount);
        }
    }
    Ok(below)
}

/// The mount that holds `path`, which must exist.
///
/// # Errors
/// `NotFound` if there is no such path.
pub fn mount_of(path: &Path) -> Result<MountInfo> {
    let path = path.canonicalize().with_context(|| format!("find {path:?}"))?;
    let mut found: Option<MountInfo> = None;
    for mount in mounts()? {
        let mount = mount?;
        // Of two at one place the later covers the earlier.
        let longer =
            |than: &MountInfo| mount.mount_point.as_os_str().len() >= than.mount_point.as_os_str().len();
        if path.starts_with(&mount.mount_point) && found.as_ref().is_none_or(longer) {
            found = Some(mount);
        }
    }
    found.ok_or_else(|| Error::not_found(format!("mount of {path:?}")))
}

/// Whether something is mounted exactly at `path`.
///
/// # Errors
/// As [`mounts`]; a path that does not exist is no mount point.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(error).context(format!("find {path:?}"))),
    };
    for mount in mounts()? {
        if OsStr::new(&mount?.mount_point) == path.as_os_str() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue
37 36 0:44 / /a\\040b\\134c\\012\\043 rw - overlay my\\011source rw,lowerdir=/x:/y
";

    #[test]
    fn lines_are_parsed_and_escapes_decoded() {
        let mounts: Vec<_> = parse_all(LINES.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].major, mounts[0].minor), (36, 35, 98, 0));
        assert_eq!(mounts[0].root, Path::new("/mnt1"));
        assert_eq!(mounts[0].tags, ["master:1", "shared:7"]);
        assert_eq!(mounts[1].mount_point, Path::new("/a b\\c\n#"));
        assert_eq!(mounts[1].source, "my\tsource");
        assert_eq!(mounts[1].super_options, "rw,lowerdir=/x:/y");
    }

    #[test]
    fn a_broken_line_is_an_error_and_ends_the_list() {
        for line in ["", "1 2 3", "a 35 98:0 / / rw - ext3 x rw", "36 35 98:0 / / rw shared:1"] {
            let text = format!("{line}\n{LINES}");
            let mut mounts = parse_all(text.as_bytes());
            assert!(mounts.next().unwrap().is_err(), "{line}");
            assert!(mounts.next().is_none());
        }
    }

    #[test]
    fn the_root_is_a_mount_point() {
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/no/such/path")).unwrap());
        assert_eq!(mount_of(Path::new("/proc/self")).unwrap().mount_point, Path::new("/proc"));
    }
}
