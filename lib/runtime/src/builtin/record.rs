//! What is kept of a container between calls, beside `libcontainer`'s own state.

use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::pidfd::Pidfd;
use serde::{Deserialize, Serialize};

use super::cgroup::Group;
use crate::spec::{read_bounded, write_new};

const FILE: &str = "gantry.json";
const STARTED: &str = "started";

/// A container that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its init.
    pub(super) pid: i32,
    /// When that began, in the kernel's ticks: the number alone may come to mean another process.
    pub(super) start_time: u64,
    /// Its bundle.
    pub(super) bundle: PathBuf,
    /// Its cgroups.
    pub(super) groups: Vec<Group>,
    /// Whether hooks are to run after it was started.
    pub(super) poststart: bool,
    /// Whether hooks are to run after it was deleted.
    pub(super) poststop: bool,
}

/// Parts of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) start_time: u64,
    /// It is a zombie.
    pub(super) ended: bool,
}

/// Looks at a process.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Source: proc(5), `/proc/[pid]/stat`: the state is field 3, the start field 22; field 2 may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { start_time, ended: matches!(state, "Z" | "X" | "x") })
}

impl Record {
    /// Reads the record in a container's directory.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub(super) fn read(dir: &Path) -> Result<Record> {
        let bytes = read_bounded(&dir.join(FILE))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::internal(format!("{:?}: {error}", dir.join(FILE))))
    }

    /// Writes it.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Error::internal(error.to_string()))?;
        let aside = dir.join("gantry.json.new");
        write_new(&aside, &text)?;
        std::fs::rename(&aside, dir.join(FILE)).with_context(|| format!("write {:?}", dir.join(FILE)))
    }

    /// Init, if it has not ended.
    pub(super) fn init(&self) -> Option<Pidfd> {
        let held = Pidfd::open(self.pid).ok()?;
        // Held first, then looked at: what is looked at is what is held, or has ended.
        let stat = stat(self.pid)?;
        (stat.start_time == self.start_time && !stat.ended && !held.has_ended().ok()?).then_some(held)
    }
}

/// Notes that a container was started.
///
/// # Errors
/// What the kernel said.
pub(super) fn set_started(dir: &Path) -> Result<()> {
    write_new(&dir.join(STARTED), b"")
}

/// Whether a container was started.
pub(super) fn is_started(dir: &Path) -> bool {
    dir.join(STARTED).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_name_confuses_nobody() {
        let text = "7 (a) Z 1 (x) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 2";
        assert_eq!(parse_stat(text), Some(Stat { start_time: 12345, ended: false }));
        assert_eq!(parse_stat("nothing"), None);
    }

    #[test]
    fn a_number_that_means_another_process_is_not_init() {
        let pid = rustix::process::getpid().as_raw_pid();
        let stat = stat(pid).unwrap();
        let mut record = Record {
            pid,
            start_time: stat.start_time,
            bundle: "/b".into(),
            groups: Vec::new(),
            poststart: false,
            poststop: false,
        };
        assert!(record.init().is_some());
        record.start_time += 1;
        assert!(record.init().is_none());
        let dir = tempfile::tempdir().unwrap();
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap().start_time, record.start_time);
        assert!(!is_started(dir.path()));
        set_started(dir.path()).unwrap();
        assert!(is_started(dir.path()));
    }
}
