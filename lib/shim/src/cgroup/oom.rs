//! Learning that a container ran out of memory.
//!
//! Version 1 says so through an eventfd, version 2 by changing `memory.events`. Either notice may come after the exit
//! that it caused, so whoever reports an exit asks [`OomWatch::check`] first.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use gantry_core::{Error, Result};
use gantry_sys::cgroup::{EventFile, V1Oom};

use super::Cgroups;
use super::file::{text, value};

/// Watches one container's memory.
#[derive(Debug)]
pub struct OomWatch {
    notices: Notices,
    dir: PathBuf,
    /// How many kills were reported. Version 1 tells of a want of memory before the kill is counted, so that both
    /// must not be reported.
    reported: AtomicU64,
}

#[derive(Debug)]
enum Notices {
    One(V1Oom),
    Two(EventFile),
}

impl OomWatch {
    /// Begins to watch. Must be called within a runtime.
    ///
    /// # Errors
    /// `NotFound` if the cgroups have no memory controller; otherwise what the kernel said.
    pub fn new(cgroups: &Cgroups) -> Result<OomWatch> {
        let (notices, dir) = match cgroups {
            Cgroups::V1(dirs) => {
                let dir = dirs.get("memory").ok_or_else(|| Error::not_found("memory cgroup"))?;
                (Notices::One(V1Oom::watch(dir)?), dir)
            }
            Cgroups::V2(dir) => {
                let mut file = EventFile::open(&dir.join("memory.events"))?;
                // Only what changes after a first reading is told.
                file.read()?;
                (Notices::Two(file), dir)
            }
        };
        let watch = OomWatch { notices, dir: dir.clone(), reported: AtomicU64::new(0) };
        watch.reported.store(watch.kills(), Ordering::Relaxed);
        Ok(watch)
    }

    /// Waits until the container ran out of memory. `None` once its cgroup is gone.
    pub async fn next(&self) -> Option<()> {
        loop {
            match &self.notices {
                Notices::One(oom) => {
                    if !oom.next().await.ok()? {
                        return None;
                    }
                    self.reported.fetch_add(1, Ordering::Relaxed);
                    return Some(());
                }
                Notices::Two(file) => {
                    file.changed().await.ok()?;
                    if self.uncounted() {
                        return Some(());
                    }
                    if !self.dir.is_dir() {
                        return None;
                    }
                }
            }
        }
    }

    /// Whether memory ran out without having been reported yet.
    pub fn check(&self) -> bool {
        if let Notices::One(oom) = &self.notices
            && let Some(Ok(true)) = oom.next().now_or_never()
        {
            self.reported.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.uncounted()
    }

    fn uncounted(&self) -> bool {
        let kills = self.kills();
        self.reported.fetch_max(kills, Ordering::Relaxed) < kills
    }

    fn kills(&self) -> u64 {
        let name = match self.notices {
            Notices::One(_) => "memory.oom_control",
            Notices::Two(_) => "memory.events",
        };
        value(&text(&self.dir, name), "oom_kill")
    }
}
