//! Bundles of busybox, and containers made from them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gantry_core::Result;
use gantry_runtime::{Io, NewContainer, NewProcess, OciRuntime, RuntimeConfig, select};
use gantry_sys::Stdio;
use gantry_sys::process::pipe;
use gantry_sys::reaper::{Expectation, Follow, Reaper};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) type Case = Pin<Box<dyn Future<Output = ()>>>;

/// One test of each case for the built-in runtime and for runc, and one of all cases for crun.
#[allow(unused_macros, reason = "each test binary uses a part")]
macro_rules! for_each_runtime {
    ($($name:ident => $case:expr;)*) => {
        mod builtin { use super::*; $(for_each_runtime!(@one $name, "builtin", $case);)* }
        mod runc { use super::*; $(for_each_runtime!(@one $name, "runc", $case);)* }
        for_each_runtime!(@one crun_does_all_of_it, "crun", $($case),*);
    };
    (@one $name:ident, $runtime:literal, $($case:expr),*) => {
        #[test]
        fn $name() {
            gantry_testkit::root!();
            if let Some(reason) = bundle::unusable($runtime) {
                gantry_testkit::skip!("{reason}");
            }
            bundle::run(async {
                $({
                    let case: fn(World) -> bundle::Case = |world| Box::pin(($case)(world));
                    case(World::new($runtime)).await;
                })*
            });
        }
    };
}

/// Why a runtime cannot be tested here, if it cannot.
pub(crate) fn unusable(runtime: &str) -> Option<String> {
    let installed =
        |name: &str| ["/usr/bin", "/usr/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
    if runtime != "builtin" && !installed(runtime) {
        return Some(format!("{runtime} is not installed"));
    }
    let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
    // Source: crun 1.8.1, "cgroups in hybrid mode not supported, drop all controllers from cgroupv2".
    (runtime == "crun" && hybrid).then(|| "crun refuses hybrid cgroups".to_owned())
}

/// Runs a test beside a reaper, as a shim would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let reaper = Reaper::new().unwrap();
        tokio::select! {
            done = reaper.run(std::future::pending()) => panic!("the reaper ended: {done:?}"),
            () = test => {}
        }
    });
}

/// A place for bundles and the state of one runtime.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) runtime: &'static str,
    pub(crate) timeout: Duration,
}

pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
}

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Running {
    follow: Follow,
    output: Option<File>,
    text: String,
    pub(crate) console: Option<OwnedFd>,
}

impl World {
    pub(crate) fn new(runtime: &'static str) -> Self {
        World { dir: tempfile::tempdir().unwrap(), runtime, timeout: PATIENCE }
    }

    /// A directory of the test's own.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn config(&self) -> RuntimeConfig {
        RuntimeConfig {
            // Without a name the choice is the crate's.
            binary: Some(self.runtime.to_owned()).filter(|name| !name.is_empty()),
            root: self.dir.path().join("state"),
            helper: Some(helper()),
            timeout: self.timeout,
            ..RuntimeConfig::new("ns")
        }
    }

    /// The cgroup of container `id`.
    pub(crate) fn cgroup(&self, id: &str) -> String {
        let name = self.dir.path().file_name().unwrap().to_str().unwrap();
        format!("gantry-runtime{name}-{id}")
    }

    pub(crate) fn bundle(&self, args: &[&str]) -> Bundle {
        self.bundle_with(args, |_| ())
    }

    pub(crate) fn bundle_with(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> Bundle {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        rootfs(&dir.join("rootfs"));
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/",
                "capabilities": {"bounding": [], "effective": [], "permitted": []},
            },
            "root": {"path": "rootfs"},
            "hostname": "inside",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            ],
            "linux": {
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys"],
            },
        });
        change(&mut spec);
        std::fs::write(dir.join("config.json"), spec.to_string()).unwrap();
        Bundle { dir }
    }

    /// Changes a bundle and its specification.
    pub(crate) fn edit(&self, bundle: &Bundle, change: impl FnOnce(&Bundle, &mut Value)) {
        let path = bundle.dir.join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(bundle, &mut spec);
        std::fs::write(&path, spec.to_string()).unwrap();
    }

    pub(crate) async fn runtime(&self, bundle: &Bundle) -> Arc<dyn OciRuntime> {
        select::for_new(&self.config(), &bundle.dir).await.unwrap()
    }

    /// The runtime that the crate chooses.
    pub(crate) async fn choose(&self, bundle: &Bundle) -> Result<Arc<dyn OciRuntime>> {
        select::for_new(&self.config(), &bundle.dir).await
    }

    pub(crate) async fn try_create(&self, id: &str, bundle: &Bundle) -> Result<Running> {
        self.create_in(id, bundle, &self.cgroup(id)).await
    }

    pub(crate) async fn create_in(&self, id: &str, bundle: &Bundle, cgroup: &str) -> Result<Running> {
        self.create_at(id, bundle, &format!("/{cgroup}")).await
    }

    /// Creates a container whose cgroup path is `cgroup` as it is.
    pub(crate) async fn create_at(&self, id: &str, bundle: &Bundle, cgroup: &str) -> Result<Running> {
        let path = bundle.dir.join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        spec["linux"]["cgroupsPath"] = cgroup.into();
        std::fs::write(&path, spec.to_string()).unwrap();
        let terminal = spec["process"]["terminal"] == true;
        let (io, output) = streams(terminal);
        let expected = Expectation::begin();
        let new = NewContainer {
            id: id.to_owned(),
            bundle: bundle.dir.clone(),
            io,
            no_pivot_root: false,
            no_new_keyring: false,
        };
        let made = self.choose(bundle).await?.create(new).await?;
        Ok(Running {
            follow: expected.register(made.pid)?,
            output,
            text: String::new(),
            console: made.console,
        })
    }

    pub(crate) async fn create(&self, id: &str, bundle: &Bundle) -> Running {
        self.try_create(id, bundle).await.unwrap()
    }

    pub(crate) async fn start(&self, id: &str, bundle: &Bundle) -> Running {
        let running = self.create(id, bundle).await;
        self.runtime(bundle).await.start(id).await.unwrap();
        running
    }

    pub(crate) async fn exec(&self, id: &str, bundle: &Bundle, process: &Value) -> Result<Running> {
        let mut whole = json!({
            "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
        });
        for (name, value) in process.as_object().unwrap() {
            whole[name] = value.clone();
        }
        let (io, output) = streams(whole["terminal"] == true);
        let expected = Expectation::begin();
        let new = NewProcess {
            id: id.to_owned(),
            exec_id: "x".to_owned(),
            process: whole.to_string().into_bytes(),
            io,
        };
        let made = self.runtime(bundle).await.exec(new).await?;
        Ok(Running {
            follow: expected.register(made.pid)?,
            output,
            text: String::new(),
            console: made.console,
        })
    }
}

/// Where the helper is: beside the tests, or where they were brought to.
fn helper() -> PathBuf {
    let brought = std::env::var_os("GANTRY_RUNTIME_HELPER");
    brought.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_gantry-runtime-helper")), PathBuf::from)
}

fn streams(terminal: bool) -> (Io, Option<File>) {
    if terminal {
        return (Io::Terminal, None);
    }
    let (ours, theirs) = pipe().unwrap();
    let second = theirs.try_clone().unwrap();
    (Io::Streams([Stdio::Null, Stdio::Fd(theirs), Stdio::Fd(second)]), Some(ours.into()))
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.follow.pid()
    }

    /// Its exit code, and all that it printed.
    pub(crate) async fn ended(&mut self) -> (Option<u8>, String) {
        let exit = tokio::time::timeout(PATIENCE, self.follow.wait_async()).await.expect("it ends").unwrap();
        if let Some(mut output) = self.output.take() {
            let rest = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                output.read_to_string(&mut text).unwrap();
                text
            });
            self.text
                .push_str(&tokio::time::timeout(PATIENCE, rest).await.expect("its output ends").unwrap());
        }
        (exit.status.code(), std::mem::take(&mut self.text))
    }

    /// Reads until it has printed `wanted`.
    pub(crate) async fn wait_for(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let mut output = self.output.as_ref().unwrap().try_clone().unwrap();
            let more = tokio::task::spawn_blocking(move || {
                let mut bytes = [0; 256];
                let length = output.read(&mut bytes).unwrap();
                assert!(length > 0, "it ended");
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            });
            self.text.push_str(&tokio::time::timeout(PATIENCE, more).await.expect("it prints").unwrap());
        }
    }
}

fn rootfs(root: &Path) {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    for dir in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in
        "sh cat echo sleep true ls head grep id hostname pwd mkdir mknod tty test wc rm ln touch chmod stat stty"
            .split(' ')
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
}

/// Types at a terminal and reads until it is closed.
pub(crate) fn talk(console: &OwnedFd, typed: &str) -> String {
    let mut console = File::from(console.try_clone().unwrap());
    console.write_all(typed.as_bytes()).unwrap();
    let mut text = String::new();
    let mut bytes = [0; 256];
    // Its other side closed is an error.
    while let Ok(length @ 1..) = console.read(&mut bytes) {
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    text
}

/// The directory of process `pid`'s cgroup in the hierarchy of `controller`.
fn cgroup_dir(pid: i32, controller: &str) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    match line(controller) {
        Some(path) => Path::new("/sys/fs/cgroup").join(controller).join(path),
        None => Path::new("/sys/fs/cgroup").join(line("").unwrap()),
    }
}

pub(crate) fn is_frozen(pid: i32) -> bool {
    let dir = cgroup_dir(pid, "freezer");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    read("freezer.state").trim() == "FROZEN" || read("cgroup.events").contains("frozen 1")
}

pub(crate) fn pids_max(pid: i32) -> String {
    std::fs::read_to_string(cgroup_dir(pid, "pids").join("pids.max")).unwrap().trim().to_owned()
}

/// Every cgroup of that name.
pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/sys/fs/cgroup").join(name)];
    found.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path().join(name)));
    found.retain(|dir| dir.exists());
    found
}
