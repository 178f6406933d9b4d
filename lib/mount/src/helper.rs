//! File systems in user space, which their own programs mount.

use std::os::fd::OwnedFd;
use std::time::Duration;

use gantry_core::{Error, Result};
use gantry_sys::Spawn;

use crate::{Mount, target};

/// How long a helper may take. It only starts the file system's own process.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

/// The program that mounts one family of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Helper {
    program: &'static str,
    prefix: &'static str,
}

/// Source: the types that containerd's FUSE snapshotters answer, and mount.fuse3(8).
const HELPERS: [Helper; 2] =
    [Helper { program: "mount.fuse3", prefix: "fuse3." }, Helper { program: "mount.fuse", prefix: "fuse." }];

/// The helper for mounts of type `kind`, if they need one.
pub(crate) fn for_kind(kind: &str) -> Option<Helper> {
    HELPERS.into_iter().find(|helper| kind.starts_with(helper.prefix) && kind.len() > helper.prefix.len())
}

impl Helper {
    pub(crate) fn mount(self, entry: &Mount, target: &OwnedFd) -> Result<()> {
        let path = std::fs::read_link(target::path_of(target))?;
        // A path on a command line must not be taken for an option.
        if entry.source.starts_with('-') {
            return Err(Error::invalid_argument(format!("source {:?} begins with a dash", entry.source)));
        }
        let mut spawn = Spawn::new(self.program).arg(&entry.source).arg(path);
        for option in &entry.options {
            spawn = spawn.arg("-o").arg(option);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let kind = &entry.kind[self.prefix.len()..];
        let child = spawn.arg("-t").arg(kind).env("PATH", path).spawn()?;
        let Some(exit) = child.wait_timeout(HELPER_TIMEOUT)? else {
            // It has ended, or will.
            drop(child.kill(SIGKILL));
            return Err(Error::deadline_exceeded(format!("{} did not finish", self.program)));
        };
        let status = exit.status;
        if status.success() {
            return Ok(());
        }
        Err(Error::unknown(format!("{} failed: {status}", self.program)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_with_a_name_after_the_prefix_have_a_helper() {
        assert_eq!(for_kind("fuse3.fuse-overlayfs").unwrap().program, "mount.fuse3");
        assert_eq!(for_kind("fuse.x").unwrap().program, "mount.fuse");
        assert_eq!([for_kind("fuse3."), for_kind("fuse"), for_kind("overlay")], [None; 3]);
    }
}
