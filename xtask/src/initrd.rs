//! The first file system of a machine, as an archive that the kernel unpacks into memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::step::{Result, at};

/// An archive in the making. Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst, "newc".
#[derive(Debug)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    pub(crate) fn new() -> Cpio {
        Cpio { bytes: Vec::new(), inode: 1 }
    }

    pub(crate) fn dir(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | mode, content);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let size = u32::try_from(content.len()).expect("nothing in here has 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("paths are short");
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum
        for field in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.inode += 1;
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The files of the modules `wanted` and of all that they need, in an order in which they load.
pub(crate) fn with_dependencies(modules: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let list = modules.join("modules.dep");
    let text = fs::read_to_string(&list).map_err(at(&list))?;
    let table: BTreeMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (file, needs.split_whitespace().collect()))
        .collect();
    let mut order = Vec::new();
    // ext4 asks for this one by name when it mounts, which no list of dependencies tells.
    for name in wanted.iter().chain(&["crc32c_generic"]) {
        let stem = |file: &str| {
            file.rsplit('/')
                .next()
                .unwrap_or_default()
                .split('.')
                .next()
                .unwrap_or_default()
                .replace('-', "_")
        };
        // What is built into the kernel has no file.
        let Some((file, needs)) = table.iter().find(|(file, _)| stem(file) == *name) else { continue };
        // The kernel's list has the deepest need last.
        for file in needs.iter().rev().chain([file]) {
            if !order.contains(&modules.join(file)) {
                order.push(modules.join(file));
            }
        }
    }
    Ok(order)
}
