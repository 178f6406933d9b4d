//! A container's cgroups: where they are, what they count, and when memory runs out.

mod file;
mod metrics1;
mod metrics2;
pub mod oom;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use gantry_core::{Any, Error, Result, ResultExt};

pub use file::ROOT;

/// The cgroups of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// One directory for each controller.
    V1(BTreeMap<String, PathBuf>),
    /// One directory for all.
    V2(PathBuf),
}

impl Cgroups {
    /// The cgroups that process `pid` is in.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, or it is in no cgroup that is mounted.
    pub fn of(pid: u32) -> Result<Cgroups> {
        let path = format!("/proc/{pid}/cgroup");
        let memberships = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        Self::parse(&memberships, &mounts)
    }

    /// Reads `/proc/PID/cgroup` against `/proc/self/mountinfo`. Source: cgroups(7), proc(5).
    fn parse(memberships: &str, mounts: &str) -> Result<Cgroups> {
        let mounts: Vec<Mounted<'_>> = mounts.lines().filter_map(Mounted::parse).collect();
        let mut controllers = BTreeMap::new();
        let mut unified = None;
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if names.is_empty() {
                unified =
                    mounts.iter().find(|mount| mount.kind == "cgroup2").and_then(|mount| mount.dir(path));
                continue;
            }
            for name in names.split(',') {
                let dir = mounts.iter().find(|mount| mount.has(name)).and_then(|mount| mount.dir(path));
                if let Some(dir) = dir {
                    controllers.insert(name.strip_prefix("name=").unwrap_or(name).to_owned(), dir);
                }
            }
        }
        // On a hybrid system the second hierarchy exists beside the first, without controllers.
        let hybrid = controllers.keys().any(|name| name != "systemd");
        match (hybrid, unified) {
            (false, Some(dir)) => Ok(Cgroups::V2(dir)),
            (true, _) => Ok(Cgroups::V1(controllers)),
            (false, None) => Err(Error::not_found("cgroup")),
        }
    }

    /// The figures, as the clients of the task service know them.
    ///
    /// # Errors
    /// `NotFound` if the cgroups are gone.
    pub fn metrics(&self) -> Result<Any> {
        match self {
            Cgroups::V1(dirs) => metrics1::read(dirs),
            Cgroups::V2(dir) => metrics2::read(dir),
        }
    }

    /// Every process in the cgroups and below.
    ///
    /// # Errors
    /// What the kernel said, but that the cgroup is gone: then there are none.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let dir = match self {
            Cgroups::V2(dir) => Some(dir),
            // Any will do: a container is in the same place in each. Some hosts do not delegate all of them.
            Cgroups::V1(dirs) => ["pids", "memory", "cpu", "devices", "systemd"]
                .iter()
                .find_map(|name| dirs.get(*name))
                .or_else(|| dirs.values().next()),
        };
        let mut pids = Vec::new();
        if let Some(dir) = dir {
            file::pids(dir, 0, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

/// One mounted hierarchy.
struct Mounted<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mounted<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (left.next()?, left.next()?);
        let kind = right.next()?;
        let options = right.nth(1).unwrap_or_default();
        kind.starts_with("cgroup").then_some(Mounted { root, point, kind, options })
    }

    fn has(&self, controller: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
    }

    /// Where the cgroup `path` is seen. A hierarchy may be mounted from within; a path that climbs is not ours.
    fn dir(&self, path: &str) -> Option<PathBuf> {
        let below = match self.root {
            "/" => path,
            root => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        let below = Path::new(below.trim_start_matches('/'));
        below
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
            .then(|| Path::new(self.point).join(below))
    }
}

#[cfg(test)]
mod tests;
