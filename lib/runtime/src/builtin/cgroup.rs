//! A container's cgroups: who is in them, freezing, killing, removing. Both versions, and the mix of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::pidfd::Pidfd;
use serde::{Deserialize, Serialize};

/// Source: the OCI runtime's and systemd's convention.
const MOUNT: &str = "/sys/fs/cgroup";

/// SIGKILL. Source: signal(7).
const KILL: i32 = 9;

/// How long freezing, killing or removing may take. Source: runc gives up after comparable times.
const PATIENCE: Duration = Duration::from_secs(10);

/// How deep cgroups in a container are looked for.
const MAX_DEPTH: usize = 32;

/// How many processes are listed; the kernel's own limit for pids.
const MAX_PIDS: usize = 1 << 22;

/// Whether everything is in version 2.
pub(super) fn is_unified() -> bool {
    gantry_sys::cgroup::is_v2(Path::new(MOUNT))
}

/// One of a container's cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The controllers of its hierarchy; none in version 2.
    pub(super) controllers: Vec<String>,
    /// Its directory.
    pub(super) dir: PathBuf,
}

impl Group {
    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether this is the hierarchy of `controller`, of version 1.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    root: String,
    point: PathBuf,
    /// `None` for version 2.
    controllers: Option<Vec<String>>,
}

/// Where the hierarchies of version 1 are mounted.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let v1 = mounted(&text).into_iter().filter(|mount| mount.controllers.is_some());
    v1.map(|mount| mount.point).filter(|point| point.starts_with(MOUNT)).collect()
}

/// Source: proc(5), `/proc/[pid]/mountinfo`.
fn mounted(mountinfo: &str) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<_>, Vec<_>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(root), Some(point), Some(kind)) = (left.get(3), left.get(4), right.first()) else {
            continue;
        };
        let controllers = match *kind {
            "cgroup2" => None,
            "cgroup" => Some(right.get(2).unwrap_or(&"").split(',').map(str::to_owned).collect()),
            _ => continue,
        };
        let mount = Mounted { root: (*root).to_owned(), point: PathBuf::from(point), controllers };
        if !found.contains(&mount) {
            found.push(mount);
        }
    }
    found
}

/// The cgroups of process `pid` that are not also this process's own: those that were made for it.
///
/// # Errors
/// `NotFound` if there is no such process.
pub(super) fn of(pid: i32) -> Result<Vec<Group>> {
    let read = |path: String| std::fs::read_to_string(&path).with_context(|| format!("read {path}"));
    let (theirs, own) = (read(format!("/proc/{pid}/cgroup"))?, read("/proc/self/cgroup".to_owned())?);
    let mounts = mounted(&read("/proc/self/mountinfo".to_owned())?);
    Ok(groups(&theirs, &own, &mounts))
}

/// Source: cgroups(7), `/proc/[pid]/cgroup`.
fn groups(theirs: &str, own: &str, mounts: &[Mounted]) -> Vec<Group> {
    let mut found = Vec::new();
    for line in theirs.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // Sharing a cgroup with this process means that none was made; killing it would kill us.
        let is_parent = own.lines().any(|own| {
            let mut fields = own.splitn(3, ':').skip(1);
            let own = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            own.0 == names
                && (own.1 == path || own.1.starts_with(&format!("{}/", path.trim_end_matches('/'))))
        });
        if is_parent || path == "/" || path.split('/').any(|part| part == "..") {
            continue;
        }
        let controllers: Vec<String> =
            names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mount = mounts.iter().find(|mount| match &mount.controllers {
            None => controllers.is_empty(),
            Some(all) => !controllers.is_empty() && controllers.iter().all(|name| all.contains(name)),
        });
        let Some(mount) = mount else { continue };
        let Some(inside) = path.strip_prefix(mount.root.trim_end_matches('/')) else { continue };
        found.push(Group { controllers, dir: mount.point.join(inside.trim_start_matches('/')) });
    }
    found
}

/// The cgroups that a container with this `path` has, if it was made far enough to have any.
pub(super) fn at(path: &str) -> Vec<Group> {
    let inside = path.trim_start_matches('/');
    if inside.is_empty() || inside.contains(':') || inside.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = mounted(&text).into_iter().map(|mount| Group {
        controllers: mount.controllers.unwrap_or_default(),
        dir: mount.point.join(inside),
    });
    groups.filter(|group| group.dir.is_dir()).collect()
}

/// The controllers of version 1 that `libcontainer` makes groups for. Source: `libcgroups` 0.7.
const JOINED: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// Puts this process into a group called `path` in each hierarchy of version 1 that `libcontainer` leaves out, such as
/// systemd's own: a container that mounts the hierarchies would find the machine's root there.
///
/// # Errors
/// What the kernel said.
pub(super) fn join_left_out(path: &str) -> Result<()> {
    let inside = path.trim_start_matches('/');
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    for mount in mounted(&text) {
        let Some(options) = mount.controllers else { continue };
        if !mount.point.starts_with(MOUNT) || options.iter().any(|name| JOINED.contains(&name.as_str())) {
            continue;
        }
        let dir = mount.point.join(inside);
        std::fs::create_dir_all(&dir).with_context(|| format!("make cgroup {dir:?}"))?;
        write(&dir, "cgroup.procs", "0")?;
    }
    Ok(())
}

/// Whether anybody is in one of the groups, or below.
///
/// # Errors
/// What the kernel said.
pub(super) fn is_populated(groups: &[Group]) -> Result<bool> {
    for group in groups {
        let mut found = Vec::new();
        collect(&group.dir, 0, &mut found).with_context(|| format!("list processes of {:?}", group.dir))?;
        if !found.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The group that lists a container's processes best: where it may also be frozen.
fn main_group(groups: &[Group]) -> Option<&Group> {
    groups
        .iter()
        .find(|group| group.has("freezer"))
        .or_else(|| groups.iter().find(|group| group.is_v2()))
        .or_else(|| groups.iter().find(|group| group.has("devices") || group.has("pids")))
        .or_else(|| groups.first())
}

fn freezer(groups: &[Group]) -> Option<&Group> {
    let v2 = |group: &&Group| group.is_v2() && group.dir.join("cgroup.freeze").exists();
    groups.iter().find(|group| group.has("freezer")).or_else(|| groups.iter().find(v2))
}

/// Every process in the groups and below.
///
/// # Errors
/// What the kernel said.
pub(super) fn pids(groups: &[Group]) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    if let Some(group) = main_group(groups) {
        collect(&group.dir, 0, &mut found).with_context(|| format!("list processes of {:?}", group.dir))?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<i32>) -> io::Result<()> {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        // Removed meanwhile, or a threaded one whose processes its parent lists.
        Err(error)
            if gone(&error) || error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // 0 stands for a process that cannot be seen from here.
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    found.truncate(MAX_PIDS);
    for child in children(dir, depth)? {
        collect(&child, depth + 1, found)?;
    }
    Ok(())
}

fn children(dir: &Path, depth: usize) -> io::Result<Vec<PathBuf>> {
    if depth >= MAX_DEPTH {
        return Ok(Vec::new());
    }
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Where a further process of the container whose init is `pid` can be put. In version 2 a group that has handed
/// controllers down takes no processes itself; there it is init's own.
pub(super) fn to_join(groups: &[Group], pid: i32) -> Vec<PathBuf> {
    let handed_down = |group: &Group| {
        let control = std::fs::read_to_string(group.dir.join("cgroup.subtree_control"));
        group.is_v2() && control.is_ok_and(|text| !text.trim().is_empty())
    };
    let place = |group: &Group| {
        if !handed_down(group) {
            return group.dir.clone();
        }
        let inits = of(pid).unwrap_or_default().into_iter().find(Group::is_v2);
        // Never outside: init may have been moved by whoever may do that.
        inits
            .map(|init| init.dir)
            .filter(|dir| dir.starts_with(&group.dir))
            .unwrap_or_else(|| group.dir.clone())
    };
    groups.iter().map(place).collect()
}

/// Whether the groups are frozen.
pub(super) fn is_frozen(groups: &[Group]) -> bool {
    let Some(group) = freezer(groups) else { return false };
    if group.is_v2() {
        let events = std::fs::read_to_string(group.dir.join("cgroup.events")).unwrap_or_default();
        return events.lines().any(|line| line == "frozen 1");
    }
    let state = std::fs::read_to_string(group.dir.join("freezer.state")).unwrap_or_default();
    matches!(state.trim(), "FROZEN" | "FREEZING")
}

/// Freezes and waits until all stand still; thaws again if they do not.
///
/// # Errors
/// `Unimplemented` without a freezer; `DeadlineExceeded`.
pub(super) async fn freeze(groups: &[Group]) -> Result<()> {
    let group = freezer(groups).ok_or_else(|| Error::unimplemented("pause without a freezer cgroup"))?;
    let frozen = async {
        loop {
            if group.is_v2() {
                write(&group.dir, "cgroup.freeze", "1")?;
                if is_frozen(groups) {
                    return Ok(());
                }
            } else {
                // Asked again each time: what forked meanwhile keeps the state at FREEZING.
                write(&group.dir, "freezer.state", "FROZEN")?;
                let state = std::fs::read_to_string(group.dir.join("freezer.state"));
                if state.context("read freezer.state")?.trim() == "FROZEN" {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, frozen).await;
    match done.unwrap_or_else(|_| Err(Error::deadline_exceeded("processes do not freeze"))) {
        Ok(()) => Ok(()),
        Err(error) => {
            thaw(groups).unwrap_or_else(|error| tracing::debug!(%error, "thaw after a failed freeze"));
            Err(error)
        }
    }
}

/// Thaws.
///
/// # Errors
/// `Unimplemented` without a freezer.
pub(super) fn thaw(groups: &[Group]) -> Result<()> {
    let group = freezer(groups).ok_or_else(|| Error::unimplemented("resume without a freezer cgroup"))?;
    if group.is_v2() {
        write(&group.dir, "cgroup.freeze", "0")
    } else {
        write(&group.dir, "freezer.state", "THAWED")
    }
}

/// Writes a file of a cgroup.
pub(super) fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("write {text:?} to {path:?}"))
}

/// Sends `signal` to every process, none of which can fork away from it.
///
/// # Errors
/// What the kernel said.
pub(super) async fn signal_all(groups: &[Group], signal: i32) -> Result<()> {
    let was_frozen = is_frozen(groups);
    let killer = groups.iter().find(|group| group.is_v2()).map(|group| group.dir.join("cgroup.kill"));
    if signal == KILL
        && groups.iter().all(Group::is_v2)
        && let Some(killer) = killer.filter(|killer| killer.exists())
    {
        // The kernel kills the frozen too.
        return std::fs::write(&killer, "1").with_context(|| format!("write {killer:?}"));
    }
    let frozen = match freezer(groups) {
        Some(_) => freeze(groups).await.is_ok(),
        None => false,
    };
    let sent = pids(groups).and_then(|pids| pids.into_iter().try_for_each(|pid| send(pid, signal)));
    // The killed die when they are thawed.
    if frozen && (!was_frozen || signal == KILL) {
        thaw(groups)?;
    }
    sent
}

fn send(pid: i32, signal: i32) -> Result<()> {
    match Pidfd::open(pid).and_then(|held| held.kill(signal)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Kills all, again and again, until nobody is left.
///
/// # Errors
/// `DeadlineExceeded` if some do not die.
pub(super) async fn kill_until_empty(groups: &[Group]) -> Result<()> {
    let killed = async {
        loop {
            if pids(groups)?.iter().all(|pid| is_dead(*pid)) {
                return Ok(());
            }
            signal_all(groups, KILL).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, killed)
        .await
        .unwrap_or_else(|_| Err(Error::deadline_exceeded("processes of the container do not die")))
}

/// Whether a process has ended, be it that its parent has not taken its exit yet.
fn is_dead(pid: i32) -> bool {
    Pidfd::open(pid).is_err() || super::record::stat(pid).is_none_or(|stat| stat.ended)
}

/// Removes the groups with all below.
///
/// # Errors
/// `DeadlineExceeded` if they do not become empty.
pub(super) async fn remove(groups: &[Group]) -> Result<()> {
    let removed = async {
        for group in groups {
            loop {
                match remove_tree(&group.dir, 0) {
                    Ok(()) => break,
                    // Ended processes leave a moment after they are reaped.
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    Err(error) => {
                        return Err(Error::io(error).context(format!("remove cgroup {:?}", group.dir)));
                    }
                }
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, removed)
        .await
        .unwrap_or_else(|_| Err(Error::deadline_exceeded("the container's cgroups are still in use")))
}

fn remove_tree(dir: &Path, depth: usize) -> io::Result<()> {
    match std::fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if gone(&error) => return Ok(()),
        Err(_) => {}
    }
    for child in children(dir, depth)? {
        remove_tree(&child, depth + 1)?;
    }
    match std::fs::remove_dir(dir) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs cgroup rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
33 30 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn only_groups_that_were_made_for_the_container_count() {
        let mounts = mounted(MOUNTS);
        assert_eq!(mounts.len(), 4);
        let theirs = "5:cpu,cpuacct:/web\n4:freezer:/shim\n3:memory:/docker/abc/web\n2:pids:/web\n0::/";
        let own = "5:cpu,cpuacct:/\n4:freezer:/shim\n3:memory:/docker/abc\n2:pids:/\n0::/";
        let found = groups(theirs, own, &mounts);
        let dirs: Vec<_> = found.iter().map(|group| group.dir.to_str().unwrap()).collect();
        assert_eq!(dirs, ["/sys/fs/cgroup/cpu,cpuacct/web", "/sys/fs/cgroup/memory/web"]);
        // One that holds this process below it is not the container's either.
        let own = "4:freezer:/a/b";
        assert_eq!(groups("4:freezer:/a", own, &mounts), []);
        assert_eq!(groups("4:freezer:/a/../b", own, &mounts), []);
        assert_eq!(groups("4:freezer:/ab", "4:freezer:/a", &mounts).len(), 1);
    }

    #[test]
    fn a_path_that_climbs_names_nothing() {
        for path in ["", "/", "/a/../..", "system.slice:x:y"] {
            assert_eq!(at(path), []);
        }
    }
}
