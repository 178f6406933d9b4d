//! What sets a container apart: users, mounts, devices, cgroups, limits; with every runtime that works here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
mod bundle;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bundle::{Bundle, World};
use gantry_core::ErrorKind;
use gantry_runtime::Status;
use serde_json::{Value, json};

const KILL: u32 = 9;

for_each_runtime! {
    a_user_namespace_has_its_own_root => users;
    a_terminal_belongs_to_its_user => terminals;
    mounts_follow_the_machines_or_do_not => propagation;
    devices_are_made_as_asked => devices;
    limits_are_those_of_the_specification => limits;
    a_cgroup_path_is_below_each_hierarchys_root => cgroup_paths;
    an_exec_into_a_paused_container_is_refused => paused;
    a_half_dead_container_can_be_ended => half_dead;
}

/// Lets everybody pass to the bundle, as the root of a user namespace has to.
fn open(world: &World, bundle: &Bundle) {
    for dir in [world.path(), &bundle.dir] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o711)).unwrap();
    }
}

fn with_users(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for map in ["uidMappings", "gidMappings"] {
        spec["linux"][map] = json!([
            {"containerID": 0, "hostID": 200_000, "size": 1000}, {"containerID": 1000, "hostID": 300_000, "size": 10},
        ]);
    }
}

async fn users(world: World) {
    // runc 1.1.5 leaves pipes to whoever made them.
    let (own, owned) =
        if world.runtime == "builtin" { ("echo said >/dev/stdout", "said\n") } else { ("true", "") };
    let script = "cat /proc/self/uid_map | while read a b c; do echo $a $b $c; done; id -u; stat -c %u /bin; \
                  echo x >/tmp/f; stat -c %u /tmp/f; cat /dev/null; OWN; \
                  wc -c </proc/keys; (echo 1 >/proc/sys/kernel/domainname) 2>/dev/null || echo refused; grep ^Groups /proc/self/status";
    let script = script.replace("OWN", own);
    let script = script.as_str();
    let said = format!("0 200000 1000\n1000 300000 10\n0\n65534\n0\n{owned}0\nrefused\nGroups:\t5 \n");
    let all =
        json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_MKNOD"]);
    let change = |spec: &mut Value| {
        with_users(spec);
        spec["process"]["user"]["additionalGids"] = json!([5]);
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 200, "soft": 100}]);
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = all.clone();
        }
    };
    let bundle = world.bundle_with(&["sh", "-c", script], change);
    open(&world, &bundle);
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, said);
    world.runtime(&bundle).await.delete("a", false).await.unwrap();

    let bundle = world.bundle_with(&["sleep", "1000"], |spec| {
        change(spec);
        spec["process"]["user"] = json!({"uid": 1001, "gid": 7});
    });
    open(&world, &bundle);
    let mut running = world.start("a", &bundle).await;
    let outside = std::fs::metadata(format!("/proc/{}", running.pid())).unwrap();
    assert_eq!((outside.uid(), outside.gid()), (300_001, 200_007));
    let runtime = world.runtime(&bundle).await;
    let process = json!({
        "args": ["sh", "-c", script], "user": {"uid": 0, "gid": 0, "additionalGids": [5]}, "capabilities": {"effective": all, "permitted": all, "bounding": all},
    });
    let mut exec = world.exec("a", &bundle, &process).await.unwrap();
    assert_eq!(exec.ended().await.1, said);
    let process =
        json!({"args": ["sh", "-c", format!("id -u; id -g; {own}")], "user": {"uid": 1001, "gid": 8}});
    let mut exec = world.exec("a", &bundle, &process).await.unwrap();
    assert_eq!(exec.ended().await.1, format!("1001\n8\n{owned}"));
    let process = json!({"args": ["sh"], "user": {"uid": 1001, "gid": 8}, "terminal": true});
    let mut exec = world.exec("a", &bundle, &process).await.unwrap();
    let console = exec.console.take().unwrap();
    let typed = "stat -c owner%u $(tty); echo sa''id >/dev/stdout; exit\n".to_owned();
    let text = tokio::task::spawn_blocking(move || bundle::talk(&console, &typed)).await.unwrap();
    assert!(text.contains("owner1001") && text.contains("said"), "{text}");
    exec.ended().await;
    // Freezing and ending know nothing of users.
    runtime.pause("a").await.unwrap();
    runtime.resume("a").await.unwrap();
    runtime.kill("a", KILL, false).await.unwrap();
    running.ended().await;
    runtime.delete("a", false).await.unwrap();

    // One that exists already is joined.
    let first = world.bundle_with(&["sleep", "1000"], change);
    open(&world, &first);
    let mut holder = world.start("a", &first).await;
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", holder.pid());
    let bundle = world.bundle_with(&["sh", "-c", "id -u; stat -c %u /bin; cat /proc/1/comm"], |spec| {
        change(spec);
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            let name = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                "mount" => continue,
                name => name,
            };
            namespace["path"] = path(name).into();
        }
        spec["hostname"] = "".into();
        let linux = spec["linux"].as_object_mut().unwrap();
        // runc wants them nevertheless.
        if world.runtime == "builtin" {
            linux.remove("uidMappings");
            linux.remove("gidMappings");
        }
    });
    open(&world, &bundle);
    let mut running = world.start("b", &bundle).await;
    assert_eq!(running.ended().await.1, "0\n65534\nsleep\n");
    world.runtime(&bundle).await.delete("b", false).await.unwrap();
    world.runtime(&first).await.delete("a", true).await.unwrap();
    holder.ended().await;
}

async fn terminals(world: World) {
    let bundle = world.bundle_with(&["sh"], |spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        spec["process"]["consoleSize"] = json!({"width": 77, "height": 33});
    });
    let mut running = world.start("a", &bundle).await;
    let console = running.console.take().unwrap();
    let typed = "stat -c owner%u $(tty); echo sa''id >/dev/stdout; stty size; exit\n".to_owned();
    let text = tokio::task::spawn_blocking(move || bundle::talk(&console, &typed)).await.unwrap();
    assert!(text.contains("owner1000") && text.contains("said") && text.contains("33 77"), "{text}");
    running.ended().await;
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn propagation(world: World) {
    let source = world.path().join("source");
    std::fs::create_dir_all(source.join("late")).unwrap();
    rustix::mount::mount_bind(&source, &source).unwrap();
    rustix::mount::mount_change(&source, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    let bind = |destination: &str, how: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", how]});
    let bundle = world.bundle_with(&["sleep", "1000"], |spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(bind("/follows", "rslave"));
        mounts.push(bind("/stays", "rprivate"));
    });
    let mut running = world.start("a", &bundle).await;
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("late", source.join("late"), "tmpfs", none, None::<&std::ffi::CStr>).unwrap();
    std::fs::write(source.join("late/file"), "").unwrap();
    let mut exec =
        world.exec("a", &bundle, &json!({"args": ["ls", "/follows/late", "/stays/late"]})).await.unwrap();
    let text = exec.ended().await.1;
    rustix::mount::unmount(source.join("late"), rustix::mount::UnmountFlags::DETACH).unwrap();
    let private = world.runtime == "builtin" || !text.ends_with("/stays/late:\nfile\n");
    assert!(text.starts_with("/follows/late:\nfile\n") && private, "{text}");
    world.runtime(&bundle).await.delete("a", true).await.unwrap();
    running.ended().await;
    rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).unwrap();
}

async fn devices(world: World) {
    let script = "stat -c '%F %a %u %g' /dev/mine /dev/sub/pipe /dev/null; head -c1 /dev/mine | wc -c; \
                  cat /dev/barred >/dev/null 2>&1 && echo read || echo denied";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"path": "/dev/barred", "type": "b", "major": 7, "minor": 0, "fileMode": 0o666},
            {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600},
        ]);
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
        }
        spec["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"},
        ]);
    });
    let mut running = world.start("a", &bundle).await;
    let said = "character special file 640 5 6\nfifo 600 0 0\ncharacter special file 666 0 0\n1\ndenied\n";
    assert_eq!(running.ended().await.1, said);
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn limits(world: World) {
    // Go raises the soft limit of open files to the hard one in its own programs, and a runc of that age sometimes lets the
    // container inherit it: the two limits of that kind are the same here.
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "hard": 200, "soft": 200}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
        {"type": "RLIMIT_FSIZE", "hard": 4096, "soft": 1024},
    ]);
    let script = "ulimit -n; ulimit -H -n; ulimit -c; ulimit -f; ulimit -H -f; cat /proc/self/oom_score_adj";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        spec["process"]["rlimits"] = limits.clone();
        spec["process"]["oomScoreAdj"] = 500.into();
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "200\n200\n0\n2\n8\n500\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
    let bundle = world.bundle(&["sleep", "1000"]);
    let mut running = world.start("a", &bundle).await;
    let process = json!({"args": ["sh", "-c", script], "rlimits": limits, "oomScoreAdj": 500});
    let mut exec = world.exec("a", &bundle, &process).await.unwrap();
    // runc 1.1.5 leaves the score of an exec as it is.
    let score = if world.runtime == "builtin" { 500 } else { 0 };
    assert_eq!(exec.ended().await.1, format!("200\n200\n0\n2\n8\n{score}\n"));
    world.runtime(&bundle).await.delete("a", true).await.unwrap();
    running.ended().await;
}

async fn cgroup_paths(world: World) {
    let plain = world.cgroup("a");
    for path in [format!("/{plain}"), format!("/{plain}/inner/most")] {
        let bundle = world.bundle(&["sleep", "1000"]);
        let mut running = world.create_at("a", &bundle, &path).await.unwrap();
        let runtime = world.runtime(&bundle).await;
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", running.pid())).unwrap();
        assert!(own.lines().any(|line| line.ends_with(&format!(":{path}"))), "{own}");
        assert_eq!(runtime.ps("a").await.unwrap(), [running.pid()]);
        runtime.delete("a", true).await.unwrap();
        running.ended().await;
        assert!(bundle::cgroups_named(path.trim_start_matches('/')).is_empty());
    }
    // What systemd is to manage needs systemd, and is refused before anything is made. runc takes it for a name.
    if world.runtime != "builtin" {
        return;
    }
    let bundle = world.bundle(&["true"]);
    let error = world.create_at("a", &bundle, "system.slice:gantry:a").await.unwrap_err();
    assert!(error.to_string().contains("systemd"), "{error}");
    assert!(bundle::cgroups_named("system.slice:gantry:a").is_empty());
}

async fn paused(world: World) {
    let bundle = world.bundle(&["sleep", "1000"]);
    let mut running = world.start("a", &bundle).await;
    let runtime = world.runtime(&bundle).await;
    runtime.pause("a").await.unwrap();
    let error = world.exec("a", &bundle, &json!({"args": ["true"]})).await.unwrap_err();
    assert!(error.to_string().contains("paused container"), "{error}");
    assert_eq!(runtime.state("a").await.unwrap().status, Status::Paused);
    assert_eq!(runtime.ps("a").await.unwrap(), [running.pid()]);
    assert!(runtime.pause("a").await.is_err());
    runtime.resume("a").await.unwrap();
    assert!(runtime.resume("a").await.is_err());
    assert_eq!(world.exec("a", &bundle, &json!({"args": ["true"]})).await.unwrap().ended().await.0, Some(0));
    runtime.delete("a", true).await.unwrap();
    running.ended().await;
}

async fn half_dead(world: World) {
    // Without a pid namespace of its own nobody dies with init.
    let script = "sleep 1000 >/dev/null 2>&1 & exit 3";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.0, Some(3));
    let runtime = world.runtime(&bundle).await;
    assert_eq!(runtime.state("a").await.unwrap().status, Status::Stopped);
    assert_eq!(runtime.ps("a").await.unwrap().len(), 1);
    let error = world.exec("a", &bundle, &json!({"args": ["true"]})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert_eq!(runtime.ps("a").await.unwrap().len(), 1);
    runtime.kill("a", KILL, true).await.unwrap();
    runtime.delete("a", true).await.unwrap();
    assert!(bundle::cgroups_named(&world.cgroup("a")).is_empty());
    assert!(!Path::new(&world.path().join("state/ns/a")).exists());
}

#[test]
fn what_the_built_in_lacks_is_named_before_anything_is_made() {
    gantry_testkit::root!();
    bundle::run(async {
        let world = World::new("builtin");
        for (at, value, field) in [
            ("/process", json!({"scheduler": {"policy": "SCHED_IDLE"}}), "process.scheduler"),
            (
                "/process",
                json!({"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 1}}),
                "process.ioPriority",
            ),
            ("/process", json!({"execCPUAffinity": {"initial": "0"}}), "process.execCPUAffinity"),
            ("/process", json!({"selinuxLabel": "a:b:c"}), "SELinux labels"),
            ("/process", json!({"apparmorProfile": "gantry-no-such-profile"}), "AppArmor"),
            ("/linux", json!({"intelRdt": {"closID": "x"}}), "linux.intelRdt"),
            ("/linux", json!({"personality": {"domain": "LINUX32"}}), "linux.personality"),
            ("/linux", json!({"mountLabel": "a:b:c"}), "SELinux labels"),
            ("/linux", json!({"timeOffsets": {"monotonic": {"secs": 1}}}), "time namespaces"),
            ("/linux", json!({"netDevices": {"eth0": {"name": "x"}}}), "linux.netDevices"),
            ("/linux", json!({"memoryPolicy": {"mode": "MPOL_DEFAULT"}}), "linux.memoryPolicy"),
            ("/linux/resources", json!({"rdma": {"x": {"hcaHandles": 1}}}), "linux.resources.rdma"),
            ("/linux/resources", json!({"cpu": {"burst": 5}}), "linux.resources.cpu.burst"),
            ("/linux", json!({"rootfsPropagation": "rshared"}), "root file system propagation"),
            (
                "",
                json!({"mounts": [{"destination": "/dev", "type": "tmpfs", "options": ["tmpcopyup"]}]}),
                "tmpcopyup",
            ),
            (
                "/linux",
                json!({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
                "linux.uidMappings",
            ),
        ] {
            let bundle = world.bundle(&["true"]);
            world.edit(&bundle, |_, spec| {
                for (name, value) in value.as_object().unwrap() {
                    spec.pointer_mut(at).unwrap()[name] = value.clone();
                }
            });
            let Err(error) = world.choose(&bundle).await else { panic!("{field} is taken") };
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{field}: {error}");
            assert!(error.to_string().contains(field), "{field}: {error}");
            assert!(!world.path().join("state").exists(), "{field}");
        }
    });
}
