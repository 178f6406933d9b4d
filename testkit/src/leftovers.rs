//! Naming what a daemon and its tasks left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::eventually::scaled;

/// Where to look.
///
/// Meant for tests under [`crate::root!`], where every process and every cgroup is the test's own; outside,
/// restrict it with [`Leftovers::only_below`].
#[derive(Clone, Debug)]
pub struct Leftovers {
    root: PathBuf,
    state: PathBuf,
    own: Vec<u32>,
    isolated: bool,
    cgroup: Option<String>,
}

impl Leftovers {
    /// Looks for what belongs to a daemon with these directories. `own` are processes that belong to the test.
    #[must_use]
    pub fn of(root: &Path, state: &Path, own: &[u32]) -> Leftovers {
        Leftovers {
            root: root.to_path_buf(),
            state: state.to_path_buf(),
            own: own.to_vec(),
            isolated: true,
            cgroup: None,
        }
    }

    /// On a shared machine: counts only cgroups of the namespace `namespace`, and only processes whose command
    /// line names one of the daemon's directories.
    #[must_use]
    pub fn only_below(mut self, namespace: &str) -> Leftovers {
        self.isolated = false;
        self.cgroup = Some(namespace.to_owned());
        self
    }

    /// Everything found, one line each; empty is good.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.mounts(&mut found);
        self.processes(&mut found);
        self.cgroups(&mut found);
        self.directories(&mut found);
        found
    }

    /// Gives what is still on its way out ten seconds to end, then fails if anything is left.
    pub fn assert_none(&self) {
        let deadline = Instant::now() + scaled(Duration::from_secs(10));
        loop {
            let found = self.list();
            if found.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n  {}", found.join("\n  "));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn mounts(&self, found: &mut Vec<String>) {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in table.lines().filter_map(|line| line.split(' ').nth(1)) {
            let path = Path::new(point);
            if path.starts_with(&self.state) || path.starts_with(&self.root) {
                found.push(format!("mount {point}"));
            }
        }
    }

    fn processes(&self, found: &mut Vec<String>) {
        let own = std::process::id();
        let above = ancestors();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if pid == own || above.contains(&pid) || self.own.contains(&pid) {
                continue;
            }
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let Some((parent, state)) = parent_and_state(&entry.path()) else { continue };
            // The test waits for its own children itself; the kernel's threads and the dead do nothing.
            if parent == own || state == 'Z' || line.is_empty() {
                continue;
            }
            let named =
                line.contains(&*self.state.to_string_lossy()) || line.contains(&*self.root.to_string_lossy());
            if self.isolated || named {
                found.push(format!("process {pid} {}", line.trim()));
            }
        }
    }

    fn cgroups(&self, found: &mut Vec<String>) {
        let top = Path::new("/sys/fs/cgroup");
        let hierarchies = if top.join("cgroup.controllers").exists() {
            vec![top.to_path_buf()]
        } else {
            directories_in(top)
        };
        for hierarchy in hierarchies {
            for group in directories_in(&hierarchy) {
                let name =
                    group.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if name == "init"
                    || self.cgroup.as_ref().is_some_and(|wanted| *wanted != name)
                    || !self.isolated && self.cgroup.is_none()
                {
                    continue;
                }
                // The group of a namespace stays for its next container; those of containers do not.
                found.extend(directories_in(&group).iter().map(|left| format!("cgroup {}", left.display())));
                let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                if !procs.is_empty() {
                    found.push(format!("processes in cgroup {}", group.display()));
                }
            }
        }
    }

    /// Source: containerd's directories of bundles, working data, fifos and ingests.
    fn directories(&self, found: &mut Vec<String>) {
        for bundles in ["io.containerd.runtime.v2.task", "io.containerd.sandbox.controller.v1.shim"] {
            for base in [self.state.join(bundles), self.root.join(bundles)] {
                for namespace in directories_in(&base) {
                    found.extend(entries(&namespace).iter().map(|left| format!("bundle {}", left.display())));
                }
            }
        }
        let ingests = self.root.join("io.containerd.content.v1.content/ingest");
        found.extend(entries(&ingests).iter().map(|left| format!("ingest {}", left.display())));
        if self.isolated {
            found.extend(
                entries(Path::new("/run/containerd/fifo"))
                    .iter()
                    .map(|left| format!("fifo {}", left.display())),
            );
            found.extend(
                entries(Path::new("/run/containerd/s"))
                    .iter()
                    .map(|left| format!("socket {}", left.display())),
            );
            for namespace in directories_in(Path::new("/run/containerd/runc")) {
                found.extend(
                    entries(&namespace).iter().map(|left| format!("runtime state {}", left.display())),
                );
            }
        }
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn directories_in(dir: &Path) -> Vec<PathBuf> {
    entries(dir).into_iter().filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir())).collect()
}

/// This process's parent, the parent's parent, and so on to process 1: those who started the test.
fn ancestors() -> Vec<u32> {
    let parent = |process: &Path| parent_and_state(process).map(|(parent, _)| parent).filter(|pid| *pid > 0);
    let mut found = vec![1];
    let mut next = parent(Path::new("/proc/self"));
    while let Some(pid) = next {
        found.push(pid);
        next = parent(&Path::new("/proc").join(pid.to_string()));
    }
    found
}

fn parent_and_state(process: &Path) -> Option<(u32, char)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}
