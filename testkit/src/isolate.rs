//! Tests that need root run themselves again under kernel namespaces of their own.
//!
//! ```text
//!  cargo test ── test ── sh, in the test's cgroups ── unshare ── sh (process 1, reaps) ── test, again
//! ```
//!
//! Inside, the test has its own mounts with a tmpfs on `/run`, its own network with a loopback
//! interface, its own process ids, and cgroup file systems that begin at a cgroup of its own. The
//! kernel removes all of it when process 1 ends; the cgroup is emptied and removed by the outer test.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::command::run_for;
use crate::eventually::scaled;

/// Set in the environment of the inner test.
const INSIDE: &str = "GANTRY_TEST_INSIDE";
/// Asks for the tests that need root. Source: STYLE.md section 6.
const WANTED: &str = "GANTRY_TEST_ROOT";
/// A file that collects one line for each skipped test: its name, a tab, the reason.
const SKIPS: &str = "GANTRY_TEST_SKIPS";

/// Runs the rest of a test as root under namespaces of its own, or skips the test.
///
/// The first statement of the test. Without `GANTRY_TEST_ROOT=1` the test is skipped, saying so; with
/// it and without root it fails. In a test that returns a value, name the value: `root!(Ok(()))`.
#[macro_export]
macro_rules! root {
    () => {
        $crate::root!(())
    };
    ($done:expr) => {
        fn here() {}
        if !$crate::isolate::enter($crate::isolate::name_of(&here)) {
            return $done;
        }
    };
}

/// Ends a test that cannot run here, saying why. `tests/skips.toml` must list it.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        fn here() {}
        $crate::isolate::skipped($crate::isolate::name_of(&here), &format!($($reason)*));
        return;
    }};
}

/// The name of the test that a function `here` was declared in, as the test harness spells it.
#[doc(hidden)]
#[must_use]
pub fn name_of<T>(_: &T) -> &'static str {
    let path = std::any::type_name::<T>();
    let path = path.strip_suffix("::here").unwrap_or(path);
    let path = path.trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// Notes that the test `name` did not run.
#[doc(hidden)]
pub fn skipped(name: &str, reason: &str) {
    let program = std::env::args().next().unwrap_or_default();
    let program =
        Path::new(&program).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let program = program.rsplit_once('-').map_or(program.as_str(), |(stem, _)| stem).to_owned();
    eprintln!("SKIPPED {program}::{name}: {reason}");
    if let Some(path) = std::env::var_os(SKIPS) {
        let mut file =
            fs::OpenOptions::new().create(true).append(true).open(&path).expect("the list of skips opens");
        file.write_all(format!("{program}::{name}\t{reason}\n").as_bytes())
            .expect("the list of skips takes a line");
    }
}

/// Whether the caller is the inner test and goes on; otherwise the test is over.
#[doc(hidden)]
#[must_use]
pub fn enter(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if std::env::var(WANTED).as_deref() != Ok("1") {
        skipped(name, "needs root: set GANTRY_TEST_ROOT=1");
        return false;
    }
    assert!(rustix::process::geteuid().is_root(), "{WANTED}=1, but this is not root");
    run_inside(name);
    false
}

fn run_inside(name: &str) {
    let exe = std::env::current_exe().expect("a running program has a path");
    let mut isolated = Isolated::new(name, &exe);
    isolated.command.args([name, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    // One test holds many waits, each of them bounded; this only ends what is truly stuck.
    let output = run_for(&mut isolated.command, scaled(Duration::from_secs(900)));
    drop(isolated);
    // Marked, or who counts results would count this test twice.
    for line in output.stdout.lines().chain(output.stderr.lines()) {
        println!("| {line}");
    }
    assert!(output.success(), "{name} failed under its own namespaces, exit code {}", output.code);
    assert!(output.stdout.contains("1 passed"), "{name} did not run under its own namespaces");
}

/// Whether this process was started under namespaces of its own.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// A program to run under namespaces and cgroups of its own; what is left of them goes when this is dropped.
pub struct Isolated {
    /// The command; the program's own arguments may be added.
    pub command: Command,
    _script: tempfile::NamedTempFile,
    _groups: Cgroups,
}

impl Isolated {
    /// Prepares to run `program`; `name` appears in the names of the cgroups.
    #[must_use]
    pub fn new(name: &str, program: &Path) -> Isolated {
        let script = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(script.path(), include_str!("isolate.sh")).expect("write the script");
        let groups = Cgroups::create(name);
        let mut command = Command::new("/bin/sh");
        command.arg(script.path()).arg("outer").args(&groups.dirs).arg("--").arg(program);
        command.env(INSIDE, "1").env("ISOLATE_SCRIPT", script.path());
        Isolated { command, _script: script, _groups: groups }
    }

    /// Leaves the program in the machine's network.
    pub fn share_network(&mut self) {
        self.command.env("ISOLATE_NETWORK", "shared");
    }
}

/// The cgroups of one test, one directory in each hierarchy.
struct Cgroups {
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    fn create(name: &str) -> Cgroups {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let short: String = name.chars().filter(char::is_ascii_alphanumeric).take(30).collect();
        let leaf = format!("gantry-test-{}-{count}-{short}", std::process::id());
        let mut dirs = Vec::new();
        for hierarchy in hierarchies() {
            let dir = hierarchy.join(&leaf);
            share_controllers(&hierarchy);
            fs::create_dir(&dir).unwrap_or_else(|error| panic!("create {}: {error}", dir.display()));
            for file in ["cpuset.cpus", "cpuset.mems"] {
                copy_cpuset(&hierarchy, &dir, file);
            }
            dirs.push(dir);
        }
        assert!(!dirs.is_empty(), "no cgroup file system is mounted");
        Cgroups { dirs }
    }
}

/// On cgroup v2 a group has the controllers that its parent shares out.
fn share_controllers(hierarchy: &Path) {
    let Ok(controllers) = fs::read_to_string(hierarchy.join("cgroup.controllers")) else { return };
    for controller in controllers.split_whitespace() {
        // One that cannot be shared out is missing inside, and a test that needs it will say so.
        let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// On cgroup v1 a new cpuset is empty and takes no process.
fn copy_cpuset(parent: &Path, child: &Path, file: &str) {
    if parent.join("cgroup.controllers").exists() {
        return;
    }
    if let Ok(value) = fs::read(parent.join(file)) {
        fs::write(child.join(file), value).expect("a new cpuset takes its parent's value");
    }
}

/// Where the hierarchies of cgroups are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mount table reads");
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (point, kind) = (fields.nth(1)?, fields.next()?);
            (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(point))
        })
        .collect()
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in &self.dirs {
            for _ in 0..200 {
                if remove_group(dir) {
                    break;
                }
                // Killed processes leave their groups a moment after process 1 is gone.
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Removes a cgroup and those below it; whether nothing is left.
fn remove_group(dir: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_group(&entry.path());
            }
        }
    }
    fs::remove_dir(dir).is_ok() || !dir.exists()
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn name_is_the_one_of_the_harness() {
        fn here() {}
        assert_eq!(super::name_of(&here), "isolate::tests::name_is_the_one_of_the_harness");
        let inside = || {
            fn here() {}
            super::name_of(&here)
        };
        assert_eq!(inside(), "isolate::tests::name_is_the_one_of_the_harness");
    }

    #[test]
    fn namespaces_are_new_and_run_is_empty() {
        crate::root!();
        assert!(std::process::id() < 100, "a new pid namespace counts from 1");
        assert_eq!(fs::read_dir("/run").unwrap().count(), 0);
        let links = fs::read_to_string("/proc/net/dev").unwrap();
        assert!(links.contains("lo:") && !links.contains("eth0:"), "{links}");
        std::net::TcpListener::bind("127.0.0.1:5000").unwrap();
    }

    #[test]
    fn cgroups_begin_at_a_group_of_the_tests_own() {
        crate::root!();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        for line in own.lines() {
            assert!(line.ends_with(":/") || line.ends_with(":/init"), "{line}");
        }
        for hierarchy in super::hierarchies() {
            let procs = fs::read_to_string(hierarchy.join("cgroup.procs")).unwrap();
            let below = fs::read_to_string(hierarchy.join("init/cgroup.procs")).unwrap_or_default();
            let own = std::process::id().to_string();
            assert!(procs.lines().chain(below.lines()).any(|pid| pid == own), "{}", hierarchy.display());
            fs::create_dir(hierarchy.join("below")).unwrap();
        }
    }
}
