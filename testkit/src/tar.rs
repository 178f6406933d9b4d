//! Writing tar archives, hostile ones included.
//!
//! Names, link targets, types and sizes go into the archive as given: what a well-behaved writer would
//! refuse is the point of half of the tests.

const BLOCK: usize = 512;
/// All entries carry one time, so that an archive's digest depends on its entries alone.
const MTIME: u64 = 1_700_000_000;

/// A tar archive in the making. Each call adds one entry.
#[derive(Clone, Debug, Default)]
pub struct Tar {
    bytes: Vec<u8>,
    owner: (u32, u32),
    extended: Vec<(String, Vec<u8>)>,
}

impl Tar {
    /// An archive without entries.
    #[must_use]
    pub fn new() -> Tar {
        Tar::default()
    }

    /// The owner and group of the entries that follow; root before the first call.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Tar {
        self.owner = (uid, gid);
        self
    }

    /// Gives the next entry an extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Tar {
        self.extended.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        self
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Tar {
        self.entry(b'5', path, mode, "", &[], None)
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Tar {
        self.entry(b'0', path, mode, "", content.as_ref(), None)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.entry(b'2', path, 0o777, target, &[], None)
    }

    /// A hard link to an earlier entry, or to what a lower layer has.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Tar {
        self.entry(b'1', path, 0o644, target, &[], None)
    }

    /// A fifo.
    #[must_use]
    pub fn fifo(self, path: &str, mode: u32) -> Tar {
        self.entry(b'6', path, mode, "", &[], None)
    }

    /// A character device.
    #[must_use]
    pub fn device(self, path: &str, mode: u32, major: u32, minor: u32) -> Tar {
        self.entry(b'3', path, mode, "", &[], Some((major, minor)))
    }

    /// Removes `path` of a lower layer. Source: OCI image specification, layer.md, "Whiteouts".
    #[must_use]
    pub fn whiteout(self, path: &str) -> Tar {
        let marked = match path.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&marked, 0, "")
    }

    /// Hides what lower layers have in the directory `path`.
    #[must_use]
    pub fn opaque(self, path: &str) -> Tar {
        self.file(&format!("{path}/.wh..wh..opq"), 0, "")
    }

    /// An entry that claims `size` bytes and brings none.
    #[must_use]
    pub fn lying_file(mut self, path: &str, size: u64) -> Tar {
        let header = header(b'0', path, 0o644, "", size, self.owner, None);
        self.bytes.extend_from_slice(&header);
        self
    }

    /// The archive, ended as the format asks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// The archive as it is, without an end.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    fn entry(
        mut self,
        kind: u8,
        path: &str,
        mode: u32,
        target: &str,
        content: &[u8],
        device: Option<(u32, u32)>,
    ) -> Tar {
        let mut extended = std::mem::take(&mut self.extended);
        if path.len() > 100 {
            extended.push(("path".to_owned(), path.as_bytes().to_vec()));
        }
        if target.len() > 100 {
            extended.push(("linkpath".to_owned(), target.as_bytes().to_vec()));
        }
        if !extended.is_empty() {
            let records: Vec<u8> = extended.iter().flat_map(|(key, value)| record(key, value)).collect();
            self.push(&header(b'x', "pax", 0o644, "", records.len() as u64, (0, 0), None), &records);
        }
        self.push(&header(kind, path, mode, target, content.len() as u64, self.owner, device), content);
        self
    }

    fn push(&mut self, header: &[u8; BLOCK], content: &[u8]) {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }
}

/// One record of an extended header; its length counts its own digits.
/// Source: POSIX.1-2001, pax, "pax Extended Header".
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// One header. Source: POSIX.1-1988, the ustar format.
fn header(
    kind: u8,
    path: &str,
    mode: u32,
    target: &str,
    size: u64,
    owner: (u32, u32),
    device: Option<(u32, u32)>,
) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    put(&mut block[0..100], path.as_bytes());
    octal(&mut block[100..108], u64::from(mode));
    octal(&mut block[108..116], u64::from(owner.0));
    octal(&mut block[116..124], u64::from(owner.1));
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], MTIME);
    block[156] = kind;
    put(&mut block[157..257], target.as_bytes());
    put(&mut block[257..265], b"ustar\x0000");
    let (major, minor) = device.unwrap_or_default();
    octal(&mut block[329..337], u64::from(major));
    octal(&mut block[337..345], u64::from(minor));
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::Tar;

    #[test]
    fn the_systems_tar_reads_what_is_written() {
        let long = format!("{}/file", "d".repeat(150));
        let archive = Tar::new()
            .dir("etc", 0o755)
            .owner(1000, 1001)
            .xattr("user.colour", b"green")
            .file("etc/motd", 0o640, "hello")
            .symlink("etc/link", "motd")
            .hardlink("etc/hard", "etc/motd")
            .file(&long, 0o644, "long")
            .whiteout("usr/gone")
            .finish();
        let mut tar = Command::new("tar")
            .args(["--numeric-owner", "-tvf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = tar.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{listing}");
        for wanted in [
            "drwxr-xr-x 0/0",
            "-rw-r----- 1000/1001",
            "etc/link -> motd",
            "etc/hard link to etc/motd",
            &long,
            "usr/.wh.gone",
        ] {
            assert!(listing.contains(wanted), "{wanted} in {listing}");
        }
    }
}
