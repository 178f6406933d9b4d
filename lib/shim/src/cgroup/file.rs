//! Reading the small text files of a cgroup.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use gantry_core::{Result, ResultExt};

/// Where cgroups are mounted. Source: cgroups(7).
pub const ROOT: &str = "/sys/fs/cgroup";

/// The most that is read of one file; `memory.numa_stat` and the like are far smaller, lists of devices too.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How deep cgroups below a container's are looked into.
const MAX_DEPTH: usize = 32;

/// The whole text of a file, or nothing if there is none.
pub(super) fn text(dir: &Path, name: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(dir.join(name)) {
        // A file that cannot be read counts for nothing; the other figures still hold.
        let _ = file.take(MAX_FILE_BYTES).read_to_string(&mut text);
    }
    text
}

/// The one number of a file; `max` is the largest, nothing is 0.
pub(super) fn number(dir: &Path, name: &str) -> u64 {
    parse(text(dir, name).trim())
}

/// A number as cgroup files write it.
pub(super) fn parse(text: &str) -> u64 {
    match text {
        "max" => u64::MAX,
        // Some version 1 limits are written as -1.
        "-1" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// The value behind `key` in lines of `key value`.
pub(super) fn value(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found.map_or(0, |value| parse(value.trim()))
}

/// The processes of a cgroup and all below it.
pub(super) fn pids(dir: &Path, depth: usize, into: &mut Vec<u32>) -> Result<()> {
    let path = dir.join("cgroup.procs");
    match File::open(&path) {
        Ok(file) => {
            let mut text = String::new();
            // A threaded cgroup refuses to list processes; its parent lists them.
            if file.take(MAX_FILE_BYTES).read_to_string(&mut text).is_ok() {
                into.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("open {path:?}")),
    }
    if depth >= MAX_DEPTH {
        return Ok(());
    }
    // A directory that vanishes has no processes any more.
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids(&entry.path(), depth + 1, into)?;
        }
    }
    Ok(())
}

/// The page sizes of huge pages that a cgroup counts, from the names of its files.
pub(super) fn page_sizes(dir: &Path, suffix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut sizes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}
