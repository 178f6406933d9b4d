//! Notifications of cgroups: files that change, and the OOM killer on cgroup v1.
//!
//! Reading and writing cgroup files needs nothing from here.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::descriptor::async_fd;

/// The largest file that is read. Those that notify hold a few lines.
const MAX_BYTES: u64 = 64 * 1024;

/// A cgroup file that notifies of its changes: `memory.events`, `cgroup.events`, `memory.pressure`.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    ready: AsyncFd<OwnedFd>,
}

impl EventFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `NotFound` if there is none; `PermissionDenied` if such files do not notify.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<(File, AsyncFd<OwnedFd>)> {
            let file = File::open(path)?;
            // A duplicate shares the kernel's memory of what was read last.
            let ready = async_fd(file.try_clone()?.into(), Interest::PRIORITY)?;
            Ok((file, ready))
        };
        let (file, ready) = open().with_context(|| format!("watch {path:?}"))?;
        Ok(EventFile { path: path.to_owned(), file, ready })
    }

    /// What the file says now. Changes after this are notified.
    ///
    /// # Errors
    /// `NotFound` once the cgroup was removed.
    pub fn read(&mut self) -> Result<String> {
        let mut text = String::new();
        let read = self
            .file
            .rewind()
            .and_then(|()| Read::by_ref(&mut self.file).take(MAX_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => Ok(text),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                Err(Error::not_found(format!("cgroup of {:?}", self.path)))
            }
            Err(error) => Err(Error::io(error).context(format!("read {:?}", self.path))),
        }
    }

    /// Waits until the file may have changed since it was read. May be dropped at any time; wakes
    /// now and then for nothing, so look.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn changed(&self) -> Result<()> {
        let mut guard = self.ready.ready(Interest::PRIORITY).await.context("watch a cgroup file")?;
        guard.clear_ready();
        Ok(())
    }
}

/// The OOM killer's notifications for one cgroup v1 memory cgroup.
#[derive(Debug)]
pub struct V1Oom {
    control: PathBuf,
    ready: AsyncFd<OwnedFd>,
}

impl V1Oom {
    /// Registers with the memory cgroup at directory `dir`.
    ///
    /// # Errors
    /// `NotFound` if the cgroup, or the memory controller, is not there.
    pub fn watch(dir: &Path) -> Result<Self> {
        let control = dir.join("memory.oom_control");
        let register = || -> io::Result<AsyncFd<OwnedFd>> {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let file = File::open(&control)?;
            // Source: the kernel's admin-guide/cgroup-v1/memory, section 10.
            let line = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
            std::fs::write(dir.join("cgroup.event_control"), line)?;
            async_fd(event, Interest::READABLE)
        };
        let ready = register().with_context(|| format!("watch {control:?}"))?;
        Ok(V1Oom { control, ready })
    }

    /// Waits for the cgroup to run out of memory. `false` means that the cgroup was removed, after
    /// which nothing more comes. May be dropped at any time without losing an event.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn next(&self) -> Result<bool> {
        loop {
            let mut guard = self.ready.readable().await.context("watch the OOM killer")?;
            let mut count = [0; 8];
            match guard.try_io(|event| Ok(rustix::io::read(event.as_fd(), &mut count)?)) {
                // The kernel also notifies when the cgroup goes away.
                Ok(Ok(_)) => return Ok(self.control.exists()),
                Ok(Err(error)) => return Err(Error::io(error).context("read an event descriptor")),
                Err(_not_ready) => {}
            }
        }
    }
}

/// Source: `CGROUP2_SUPER_MAGIC` of the kernel's `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Whether the file system at `dir` is cgroup v2.
pub fn is_v2(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == CGROUP2_MAGIC)
}

/// Has the kernel get ready for moves of processes between cgroups, and blocks for as long as that takes.
///
/// The first move after a while waits for an RCU grace period, 10 to 40 ms on an idle machine, before it may keep others
/// from forking; moves that follow soon do not. Called while there is other work to do before a move, this takes that
/// wait out of its way. It changes nothing: it moves this process to the cgroup that it is in.
///
/// Source: the kernel's `cgroup_threadgroup_rwsem`, a percpu semaphore; its mount option `favordynmods` avoids the wait.
///
/// # Errors
/// If this process's cgroup is not to be seen, or not to be written.
pub fn ease_moves() -> Result<()> {
    let own = std::fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let files = own.lines().filter_map(own_procs);
    let file = files.into_iter().flatten().find(|file| file.exists());
    let file = file.ok_or_else(|| Error::not_found("a file of this process's own cgroup"))?;
    std::fs::write(&file, std::process::id().to_string()).with_context(|| format!("write {file:?}"))
}

/// Where the list of processes of a line of `/proc/PID/cgroup` may be. Source: cgroups(7).
fn own_procs(line: &str) -> Option<[PathBuf; 2]> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    // Beyond the root of this cgroup namespace.
    if path.contains("..") {
        return None;
    }
    let hierarchies = if controllers.is_empty() { ["", "unified"] } else { [controllers, controllers] };
    let root = Path::new("/sys/fs/cgroup");
    Some(hierarchies.map(|name| root.join(name).join(path.trim_start_matches('/')).join("cgroup.procs")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Spawn;

    #[test]
    fn a_processs_own_cgroup_is_found() {
        let procs = |line: &str| own_procs(line).map(|files| files.map(|file| file.display().to_string()));
        assert_eq!(procs("4:memory:/a/b").unwrap()[0], "/sys/fs/cgroup/memory/a/b/cgroup.procs");
        assert_eq!(
            procs("0::/").unwrap(),
            ["/sys/fs/cgroup/cgroup.procs".to_owned(), "/sys/fs/cgroup/unified/cgroup.procs".to_owned()]
        );
        assert_eq!(procs("0::/../x"), None);
        assert_eq!(procs("nonsense"), None);
    }

    #[test]
    fn easing_moves_moves_nothing() {
        gantry_testkit::root!();
        let before = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        ease_moves().unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/cgroup").unwrap(), before);
    }

    /// A new cgroup below `hierarchy`, removed at the end.
    struct Group(PathBuf);

    impl Group {
        fn make(hierarchy: &str, name: &str) -> Self {
            let dir = Path::new(hierarchy).join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            Group(dir)
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            drop(std::fs::remove_dir(&self.0));
        }
    }

    #[test]
    fn a_child_starts_inside_its_cgroup_and_its_end_is_notified() {
        gantry_testkit::root!();
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|dir| Path::new(dir).join("cgroup.procs").exists())
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let group = Group::make(unified, "sys-events");
            let mut events = EventFile::open(&group.0.join("cgroup.events")).unwrap();
            assert!(events.read().unwrap().contains("populated 0"));
            let child = Spawn::new("/bin/sleep").arg("1000").cgroup(&group.0).spawn().unwrap();
            while !events.read().unwrap().contains("populated 1") {
                events.changed().await.unwrap();
            }
            let procs = std::fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
            assert_eq!(procs.trim(), child.pid().to_string());
            child.kill(libc::SIGKILL).unwrap();
            child.wait_async().await.unwrap();
            while !events.read().unwrap().contains("populated 0") {
                events.changed().await.unwrap();
            }
        });
    }

    #[test]
    fn the_oom_killer_and_the_groups_removal_are_notified_on_v1() {
        gantry_testkit::root!();
        if !Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            gantry_testkit::skip!("no cgroup v1 memory controller");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let group = Group::make("/sys/fs/cgroup/memory", "sys-oom");
            std::fs::write(group.0.join("memory.limit_in_bytes"), "4194304").unwrap();
            let oom = V1Oom::watch(&group.0).unwrap();
            let child = Spawn::new("/bin/sh")
                .args(["-c", "exec head -c 268435456 /dev/zero | tail"])
                .cgroup(&group.0)
                .spawn()
                .unwrap();
            assert!(oom.next().await.unwrap());
            child.wait_async().await.unwrap();
            let dir = group.0.clone();
            while std::fs::remove_dir(&dir).is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            while oom.next().await.unwrap() {}
        });
    }
}
