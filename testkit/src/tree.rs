//! Comparing trees: everything that a container could see of them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// One line for each thing below `root`: its mode, owner, links, time, content and attributes.
///
/// # Errors
/// Those of the file system.
pub fn tree_lines(root: &Path) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let path = root.join(&relative);
        let meta = fs::symlink_metadata(&path)?;
        let kind = meta.file_type();
        let mut line = format!(
            "{} {:o} {}:{} links {}",
            relative.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            if kind.is_dir() { 0 } else { meta.nlink() }
        );
        let whiteout = kind.is_char_device() && meta.rdev() == 0;
        // No layer says when its root or a whiteout was changed.
        if !relative.as_os_str().is_empty() && !whiteout {
            line.push_str(&format!(" at {}.{}", meta.mtime(), meta.mtime_nsec()));
        }
        if kind.is_symlink() {
            line.push_str(&format!(" -> {}", fs::read_link(&path)?.display()));
        } else if kind.is_file() {
            line.push_str(&format!(" {} bytes {}", meta.len(), hex(&Sha256::digest(fs::read(&path)?))));
        } else if kind.is_char_device() || kind.is_block_device() {
            line.push_str(&format!(" device {}", meta.rdev()));
        }
        for (name, value) in attributes(&path)? {
            line.push_str(&format!(" {name}={}", hex(&value)));
        }
        lines.push(line);
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(relative.join(entry?.file_name()));
            }
        }
    }
    lines.sort();
    Ok(lines)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value)?;
        value.truncate(length);
        found.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_and_a_changed_name_show() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            fs::write(dir.path().join("f"), text).unwrap();
            let file = fs::File::options().write(true).open(dir.path().join("f")).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
            tree_lines(dir.path()).unwrap()
        };
        let before = write("abc");
        assert_ne!(write("abd"), before);
        assert_eq!(write("abc"), before);
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        assert_ne!(tree_lines(dir.path()).unwrap(), before);
    }
}
