//! What a tree looks like, for comparing two.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use gantry_archive::{Applied, Target, apply};
use gantry_core::{Context, Result};

/// One line for each file below `root`: all that can be seen of it, but for inode numbers.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut names = BTreeMap::new();
    walk(root, root, &mut found, &mut names);
    found
}

fn walk(
    root: &Path,
    dir: &Path,
    found: &mut BTreeMap<String, String>,
    names: &mut BTreeMap<(u64, u64), String>,
) {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let Ok(meta) = path.symlink_metadata() else {
            found.insert(name, "listed, but not there".to_owned());
            continue;
        };
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let sum: u64 =
                bytes.iter().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("{} bytes {sum:x}", bytes.len())
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {:x}", meta.rdev())
        } else {
            String::new()
        };
        let first = if !kind.is_dir() && meta.nlink() > 1 {
            let first = names.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
            // A lone name is no link, whatever count an overlay shows.
            if *first == name { String::new() } else { format!(" is {first}") }
        } else {
            String::new()
        };
        let line = format!(
            "{:o} {}:{} {}.{} {content}{first} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&path)
        );
        found.insert(name, line);
        if kind.is_dir() {
            walk(root, &path, found, names);
        }
    }
}

/// Extended attributes, except an overlay's own.
fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0u8; 4096];
    let Ok(length) = rustix::fs::llistxattr(path.as_os_str().as_bytes(), &mut names[..]) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let text = String::from_utf8_lossy(name).into_owned();
        if text.contains(".overlay.") {
            continue;
        }
        let mut value = vec![0u8; 4096];
        let length = rustix::fs::lgetxattr(path.as_os_str().as_bytes(), name, &mut value[..]).unwrap();
        value.truncate(length);
        found.push((text, value));
    }
    found.sort();
    found
}

/// Extracts `archive` into `dir`.
pub(crate) fn unpack(archive: &[u8], dir: &Path) -> Result<Applied> {
    apply(&Context::background(), archive, &Target::Directory(dir.to_path_buf()))
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, args: &[&str]) {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
