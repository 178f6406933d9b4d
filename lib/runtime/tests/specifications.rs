//! What specifications ask for, beyond the plain case, with every runtime that works here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
mod bundle;

use std::path::Path;
use std::time::Duration;

use bundle::World;
use gantry_core::ErrorKind;
use gantry_runtime::{Checkpoint, select};
use serde_json::{Value, json};

for_each_runtime! {
    hooks_run_in_their_order => hooks;
    a_read_only_cgroup_is_read_only => read_only_cgroup;
    mounts_are_what_they_should_be => mounts;
    limits_that_may_not_be_granted_are_lowered => limits;
    r18_an_image_whose_dev_is_a_link_changes_nothing_outside => dev_link;
    masked_and_read_only_paths_are_so => masked;
    an_unwritable_root_is_unwritable => read_only_root;
}

/// A hook that appends `word` and the id it was told to a file.
fn hook(log: &Path, word: &str) -> Value {
    let script = format!(
        "read state; echo {word} $(echo $state | grep -o '\"id\": *\"[^\"]*\"' | tr -d ' ') >>{}",
        log.display()
    );
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

async fn hooks(world: World) {
    let log = world.path().join("hooks");
    let bundle = world.bundle_with(&["cat", "/tmp/hook"], |spec| {
        spec["hooks"] = json!({
            "prestart": hook(&log, "first"), "createRuntime": hook(&log, "create"), "createContainer": hook(&log, "inside"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo $A >/tmp/hook"], "env": ["A=b"]}],
            "poststart": hook(&log, "started"), "poststop": hook(&log, "stopped"),
        });
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await, (Some(0), "b\n".to_owned()));
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        said,
        "first \"id\":\"a\"\ncreate \"id\":\"a\"\ninside \"id\":\"a\"\nstarted \"id\":\"a\"\nstopped \"id\":\"a\"\n"
    );
    // One that fails, fails the container.
    let bundle = world.bundle_with(&["true"], |spec| {
        spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
    });
    assert!(world.try_create("b", &bundle).await.is_err());
    assert!(bundle::cgroups_named(&world.cgroup("b")).is_empty());
}

async fn read_only_cgroup(world: World) {
    // Source: containerd's default mounts.
    let mount = json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    });
    let script = "cd /sys/fs/cgroup; for d in *; do test -d $d && mkdir $d/x 2>/dev/null && echo writable $d; done; \
                  ls >/dev/null && echo there; test -e pids/cgroup.procs -o -e cgroup.procs && echo mounted";
    for namespace in [true, false] {
        let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
            spec["mounts"].as_array_mut().unwrap().push(mount.clone());
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
            }
            if namespace {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            }
        });
        let mut running = world.start("a", &bundle).await;
        assert_eq!(running.ended().await.1, "there\nmounted\n", "{namespace}");
        world.runtime(&bundle).await.delete("a", false).await.unwrap();
    }
}

async fn mounts(world: World) {
    let source = world.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "text\n").unwrap();
    let bind = |destination: &str, options: Value| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    let script = "cat /a/file /c; (echo x >/a/new) 2>/dev/null && echo wrote || echo refused; \
                  echo x >/b/d/new && echo wrote; grep -E ' /(a|b/d) ' /proc/self/mountinfo | grep -c -E 'shared:|master:'";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(bind("/a", json!(["rbind", "rprivate", "ro"])));
        mounts.push(bind("/b/d", json!(["rbind", "rprivate", "rw"])));
        mounts.push(json!({
            "destination": "/c", "type": "bind", "source": source.join("file"), "options": ["bind", "rprivate", "ro"],
        }));
        // One that climbs stays inside.
        mounts.push(bind("/../../../../e", json!(["bind", "ro"])));
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "text\ntext\nrefused\nwrote\n0\n");
    assert!(bundle.dir.join("rootfs/e").is_dir() && source.join("new").exists());
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn limits(world: World) {
    let script = "ulimit -H -n; cat /proc/self/oom_score_adj";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        spec["process"]["oomScoreAdj"] = (-999).into();
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 900_000_000, "soft": 64}]);
    });
    if gantry_sys::attributes::may_raise_limits() {
        // The kernel's own bound is below that: fs.nr_open.
        assert!(world.try_create("a", &bundle).await.is_err());
        return;
    }
    let mut running = world.start("a", &bundle).await;
    let (code, text) = running.ended().await;
    assert_eq!(code, Some(0), "{text}");
    let process = json!({"args": ["true"], "oomScoreAdj": -999});
    let runtime = world.runtime(&bundle).await;
    assert!(world.exec("a", &bundle, &process).await.is_err());
    runtime.delete("a", false).await.unwrap();
}

async fn dev_link(world: World) {
    let outside = world.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("ptmx"), "mine").unwrap();
    let bundle = world.bundle(&["true"]);
    std::fs::remove_dir(bundle.dir.join("rootfs/dev")).unwrap();
    std::os::unix::fs::symlink(&outside, bundle.dir.join("rootfs/dev")).unwrap();
    assert_eq!(world.try_create("a", &bundle).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let names: Vec<_> =
        std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ptmx"]);
}

async fn masked(world: World) {
    let script = "wc -c </proc/keys; ls /sys/firmware | wc -l; (echo 1 >/proc/sys/kernel/domainname) 2>/dev/null || echo refused";
    let bundle = world.bundle(&["sh", "-c", script]);
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "0\n0\nrefused\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn read_only_root(world: World) {
    let script = "mkdir /x 2>/dev/null || echo refused; mkdir /tmp/x && echo made";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| spec["root"]["readonly"] = true.into());
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "refused\nmade\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

#[test]
fn what_the_built_in_lacks_goes_to_an_installed_runc() {
    gantry_testkit::root!();
    if let Some(reason) = bundle::unusable("runc") {
        gantry_testkit::skip!("{reason}");
    }
    bundle::run(async {
        let world = World::new("");
        let bundle = world.bundle_with(&["cat", "/etc/passwd"], |spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
            );
        });
        let runtime = world.runtime(&bundle).await;
        assert!(runtime.name().ends_with("/runc"), "{}", runtime.name());
        assert_eq!(std::fs::read_to_string(bundle.dir.join(select::RECORD)).unwrap(), runtime.name());
        let mut running = world.start("a", &bundle).await;
        let (_, text) = running.ended().await;
        assert_eq!(text, "root:x:0:0:root:/root:/bin/sh\n");
        runtime.delete("a", false).await.unwrap();
        // Nobody here makes these, and that is said before anything is made.
        let bundle = world.bundle_with(&["true"], |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        });
        let error = world.choose(&bundle).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("time namespaces"), "{error}");
    });
}

#[test]
fn a_create_that_takes_too_long_is_given_up_and_leaves_nothing() {
    gantry_testkit::root!();
    bundle::run(async {
        let world = World { timeout: Duration::from_secs(1), ..World::new("builtin") };
        let bundle = world.bundle_with(&["true"], |spec| {
            spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
        });
        let error = world.try_create("a", &bundle).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert!(bundle::cgroups_named(&world.cgroup("a")).is_empty());
        assert_eq!(world.runtime(&bundle).await.state("a").await.unwrap_err().kind(), ErrorKind::NotFound);
        let error = world.runtime(&bundle).await.checkpoint("a", Checkpoint::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unimplemented);
    });
}

#[test]
fn a_cgroup_that_is_in_use_is_nobodys() {
    gantry_testkit::root!();
    bundle::run(async {
        let world = World::new("builtin");
        let bundle = world.bundle(&["sleep", "1000"]);
        let mut running = world.start("a", &bundle).await;
        let theirs = bundle::cgroups_named(&world.cgroup("a")).remove(0);
        let inside = world.bundle(&["nosuch"]);
        // Another container asks for the same one; its failure must not be the first one's end.
        let error = world.create_in("b", &inside, &world.cgroup("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(theirs.exists());
        let runtime = world.runtime(&bundle).await;
        assert_eq!(runtime.state("a").await.unwrap().pid, running.pid());
        runtime.delete("a", true).await.unwrap();
        running.ended().await;
        assert!(!theirs.exists());
    });
}
