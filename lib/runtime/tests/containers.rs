//! The same containers with every runtime that works here.
//!
//! What a runtime cannot do on this machine is skipped with the reason.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
mod bundle;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bundle::{Bundle, Running, World};
use gantry_core::ErrorKind;
use gantry_runtime::{OciRuntime, Status};
use serde_json::json;

const KILL: u32 = 9;

for_each_runtime! {
    a_container_runs_and_its_output_and_exit_code_arrive => runs;
    init_waits_to_be_started_and_states_follow => states;
    an_exec_runs_inside => execs;
    a_terminal_is_handed_over => terminal;
    an_exec_gets_a_terminal => exec_terminal;
    a_signal_reaches_init_and_all_reaches_everybody => kills;
    a_paused_container_stands_still => pauses;
    what_cannot_run_says_why_and_leaves_nothing => refusals;
    r13_descriptors_are_no_way_out => descriptors;
    r06_devices_are_denied_unless_allowed => devices;
    a_seccomp_filter_works_for_init_and_exec => seccomp;
    r09_s09_capabilities_are_what_was_asked_for => capabilities;
    s13_groups_are_those_of_the_specification => groups;
    resources_are_changed => resources;
    a_second_container_of_that_id_is_refused => twice;
    r03_the_runtimes_executable_cannot_be_overwritten => overwrite;
}

async fn runs(world: World) {
    let bundle = world.bundle(&["sh", "-c", "echo out; echo err >&2; pwd; exit 7"]);
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await, (Some(7), "out\nerr\n/\n".to_owned()));
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
    assert_eq!(world.runtime(&bundle).await.state("a").await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn states(world: World) {
    let bundle = world.bundle(&["sleep", "1000"]);
    let mut running = world.create("a", &bundle).await;
    let runtime = world.runtime(&bundle).await;
    assert_eq!(runtime.state("a").await.unwrap().status, Status::Created);
    runtime.start("a").await.unwrap();
    let state = runtime.state("a").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Running, running.pid()));
    assert!(runtime.start("a").await.is_err());
    assert!(runtime.ps("a").await.unwrap().contains(&running.pid()));
    assert!(runtime.delete("a", false).await.is_err());
    runtime.kill("a", KILL, false).await.unwrap();
    assert_eq!(running.ended().await.0, None);
    assert_eq!(runtime.state("a").await.unwrap().status, Status::Stopped);
    assert_eq!(runtime.kill("a", KILL, false).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(world.exec("a", &bundle, &json!({"args": ["true"]})).await.is_err());
    runtime.delete("a", false).await.unwrap();
    assert_eq!(runtime.kill("a", KILL, false).await.unwrap_err().kind(), ErrorKind::NotFound);
    // One that was only made can be deleted, and so can one that runs, by force.
    let mut running = world.create("b", &bundle).await;
    runtime.delete("b", true).await.unwrap();
    running.ended().await;
    let mut running = world.start("c", &bundle).await;
    runtime.delete("c", true).await.unwrap();
    running.ended().await;
}

/// A container that sleeps, for execs.
async fn sleeper(
    world: &World,
    change: impl FnOnce(&mut serde_json::Value),
) -> (Bundle, Running, Arc<dyn OciRuntime>) {
    let bundle = world.bundle_with(&["sleep", "1000"], change);
    let running = world.start("a", &bundle).await;
    let runtime = world.runtime(&bundle).await;
    (bundle, running, runtime)
}

async fn finish(mut running: Running, runtime: &Arc<dyn OciRuntime>) {
    runtime.kill("a", KILL, true).await.unwrap();
    running.ended().await;
    runtime.delete("a", false).await.unwrap();
}

async fn execs(world: World) {
    let (bundle, running, runtime) = sleeper(&world, |_| ()).await;
    let script = "hostname; id -u; echo $A; pwd; test -e /proc/1/status && head -n1 /proc/1/status; exit 3";
    let process = json!({
        "args": ["sh", "-c", script], "env": ["PATH=/bin", "A=b"], "cwd": "/tmp", "user": {"uid": 7, "gid": 7},
    });
    let mut exec = world.exec("a", &bundle, &process).await.unwrap();
    let (code, text) = exec.ended().await;
    assert_eq!((code, text.as_str()), (Some(3), "inside\n7\nb\n/tmp\nName:\tsleep\n"));
    // It has the container's cgroups.
    let mut exec = world.exec("a", &bundle, &json!({"args": ["sleep", "1000"]})).await.unwrap();
    assert!(runtime.ps("a").await.unwrap().contains(&exec.pid()));
    let error = world.exec("a", &bundle, &json!({"args": ["nosuch"]})).await.unwrap_err().to_string();
    assert!(error.contains("executable file") && error.contains("not found in $PATH"), "{error}");
    let bad = world.exec("a", &bundle, &json!({"args": ["true"], "cwd": "/no/such"})).await.unwrap_err();
    assert!(bad.to_string().to_lowercase().contains("no such file"), "{bad}");
    finish(running, &runtime).await;
    assert_eq!(exec.ended().await.0, None);
}

/// Types at a terminal and reads until it is closed.
async fn talk(console: OwnedFd, typed: &str, wanted: &str) {
    let typed = typed.to_owned();
    let text = tokio::task::spawn_blocking(move || bundle::talk(&console, &typed)).await.unwrap();
    assert!(text.contains(wanted), "{text:?}");
}

async fn terminal(world: World) {
    let bundle = world.bundle_with(&["sh"], |spec| spec["process"]["terminal"] = true.into());
    let mut running = world.start("a", &bundle).await;
    let console = running.console.take().unwrap();
    talk(console, "test -t 0 && test -c /dev/console && echo ter''minal; exit 4\n", "terminal").await;
    assert_eq!(running.ended().await.0, Some(4));
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn exec_terminal(world: World) {
    let (bundle, running, runtime) = sleeper(&world, |_| ()).await;
    let mut exec = world.exec("a", &bundle, &json!({"args": ["sh"], "terminal": true})).await.unwrap();
    let console = exec.console.take().unwrap();
    talk(console, "tty; test -t 1 && echo ter''minal; exit 5\n", "terminal").await;
    assert_eq!(exec.ended().await.0, Some(5));
    finish(running, &runtime).await;
}

async fn kills(world: World) {
    let script = "trap 'echo got; exit 9' TERM; sleep 1000 & echo ready; while :; do sleep 0.01; done";
    let bundle = world.bundle(&["sh", "-c", script]);
    let mut running = world.start("a", &bundle).await;
    let runtime = world.runtime(&bundle).await;
    running.wait_for("ready\n").await;
    runtime.kill("a", 15, false).await.unwrap();
    assert_eq!(running.ended().await, (Some(9), "ready\ngot\n".to_owned()));
    runtime.delete("a", false).await.unwrap();
    let bundle = world.bundle(&["sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"]);
    let mut running = world.start("b", &bundle).await;
    running.wait_for("ready\n").await;
    assert!(runtime.ps("b").await.unwrap().len() >= 3);
    runtime.kill("b", KILL, true).await.unwrap();
    running.ended().await;
    runtime.delete("b", false).await.unwrap();
}

async fn pauses(world: World) {
    let bundle = world.bundle(&["sh", "-c", "while :; do echo x; sleep 0.005; done"]);
    let mut running = world.start("a", &bundle).await;
    let runtime = world.runtime(&bundle).await;
    running.wait_for("x\n").await;
    runtime.pause("a").await.unwrap();
    assert_eq!(runtime.state("a").await.unwrap().status, Status::Paused);
    assert!(bundle::is_frozen(running.pid()));
    runtime.resume("a").await.unwrap();
    assert_eq!(runtime.state("a").await.unwrap().status, Status::Running);
    assert!(!bundle::is_frozen(running.pid()));
    // One that is paused can be killed nevertheless.
    runtime.pause("a").await.unwrap();
    runtime.kill("a", KILL, true).await.unwrap();
    runtime.resume("a").await.ok();
    running.ended().await;
    runtime.delete("a", true).await.unwrap();
}

async fn refusals(world: World) {
    let cases: [(&[&str], &str, &str); 3] = [
        (&["nosuch"], "/", "not found in $PATH"),
        (&["/no/such"], "/", "no such file"),
        (&["true"], "/etc/passwd", "not a directory"),
    ];
    for (args, cwd, words) in cases {
        let bundle = world.bundle_with(args, |spec| spec["process"]["cwd"] = cwd.into());
        let error = world.try_create("a", &bundle).await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&words.to_lowercase()), "{error}");
        assert!(error.starts_with("OCI runtime create failed: "), "{error}");
        assert_eq!(world.runtime(&bundle).await.state("a").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(bundle::cgroups_named(&world.cgroup("a")), Vec::<std::path::PathBuf>::new());
    }
    // The id is free again.
    let bundle = world.bundle(&["true"]);
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.0, Some(0));
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}

async fn descriptors(world: World) {
    let names: Vec<String> = (0..50).map(|n| format!("/proc/self/fd/{n}")).collect();
    for cwd in &names {
        let bundle = world.bundle_with(&["true"], |spec| spec["process"]["cwd"] = cwd.as_str().into());
        assert!(world.try_create("a", &bundle).await.is_err(), "{cwd}");
    }
    let (bundle, running, runtime) = sleeper(&world, |_| ()).await;
    for cwd in &names {
        assert!(world.exec("a", &bundle, &json!({"args": ["true"], "cwd": cwd})).await.is_err(), "{cwd}");
    }
    let script = "ls /proc/$$/fd; true";
    let mut exec = world.exec("a", &bundle, &json!({"args": ["sh", "-c", script]})).await.unwrap();
    assert_eq!(exec.ended().await.1, "0\n1\n2\n");
    finish(running, &runtime).await;
    let bundle = world.bundle(&["sh", "-c", script]);
    let mut running = world.start("b", &bundle).await;
    assert_eq!(running.ended().await.1, "0\n1\n2\n");
    runtime.delete("b", false).await.unwrap();
}

async fn devices(world: World) {
    let script = "mknod /dev/x b 7 0; cat /dev/x >/dev/null 2>&1 && echo open || echo denied; \
                  mknod /dev/y c 1 5 && head -c1 /dev/y >/dev/null && echo open || echo denied";
    let all = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    let change = |spec: &mut serde_json::Value| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = all.clone();
        }
    };
    let bundle = world.bundle_with(&["sh", "-c", script], change);
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, "denied\nopen\n");
    let runtime = world.runtime(&bundle).await;
    runtime.delete("a", false).await.unwrap();
    // Without a word about devices they are denied too.
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        change(spec);
        spec["linux"]["resources"] = json!({});
    });
    let mut running = world.start("b", &bundle).await;
    assert!(running.ended().await.1.starts_with("denied\n"));
    runtime.delete("b", false).await.unwrap();
}

async fn seccomp(world: World) {
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    let script = "mkdir /tmp/d 2>/dev/null && echo made || echo refused; grep Seccomp: /proc/self/status";
    for no_new_privileges in [true, false] {
        let change = |spec: &mut serde_json::Value| {
            spec["linux"]["seccomp"] = filter.clone();
            spec["process"]["noNewPrivileges"] = no_new_privileges.into();
        };
        let bundle = world.bundle_with(&["sh", "-c", script], change);
        let mut running = world.start("a", &bundle).await;
        assert_eq!(running.ended().await.1, "refused\nSeccomp:\t2\n", "{no_new_privileges}");
        world.runtime(&bundle).await.delete("a", false).await.unwrap();
        let (bundle, running, runtime) = sleeper(&world, change).await;
        let process = json!({"args": ["sh", "-c", script], "noNewPrivileges": no_new_privileges});
        let mut exec = world.exec("a", &bundle, &process).await.unwrap();
        assert_eq!(exec.ended().await.1, "refused\nSeccomp:\t2\n", "{no_new_privileges}");
        finish(running, &runtime).await;
    }
}

async fn capabilities(world: World) {
    let script = "grep -E '^(CapInh|CapBnd|CapEff|NoNewPrivs)' /proc/self/status";
    let some = json!(["CAP_CHOWN", "CAP_KILL"]);
    let sets = json!({"bounding": some, "effective": some, "permitted": some});
    let said =
        "CapInh:\t0000000000000000\nCapEff:\t0000000000000021\nCapBnd:\t0000000000000021\nNoNewPrivs:\t1\n";
    let none =
        "CapInh:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t0\n";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        spec["process"]["capabilities"] = sets.clone();
        spec["process"]["noNewPrivileges"] = true.into();
    });
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, said);
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
    let (bundle, running, runtime) = sleeper(&world, |_| ()).await;
    let process = json!({"args": ["sh", "-c", script], "capabilities": sets, "noNewPrivileges": true});
    let mut exec = world.exec("a", &bundle, &process).await.unwrap();
    assert_eq!(exec.ended().await.1, said);
    // None is none, be it said or not.
    for capabilities in [json!({}), json!({"bounding": []})] {
        let process = json!({"args": ["sh", "-c", script], "capabilities": capabilities});
        let mut exec = world.exec("a", &bundle, &process).await.unwrap();
        assert_eq!(exec.ended().await.1, none);
    }
    finish(running, &runtime).await;
}

async fn groups(world: World) {
    let script = "grep ^Groups /proc/self/status; id -u; id -g; umask";
    let mut user = json!({"uid": 1000, "gid": 1000, "additionalGids": [50, 1000]});
    let mut said = "Groups:\t50 1000 \n1000\n1000\n0022\n";
    // runc 1.1.5 ignores it.
    if world.runtime == "builtin" {
        user["umask"] = 0o077.into();
        said = "Groups:\t50 1000 \n1000\n1000\n0077\n";
    }
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| spec["process"]["user"] = user.clone());
    let mut running = world.start("a", &bundle).await;
    assert_eq!(running.ended().await.1, said);
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
    let (bundle, running, runtime) = sleeper(&world, |_| ()).await;
    let mut exec =
        world.exec("a", &bundle, &json!({"args": ["sh", "-c", script], "user": user})).await.unwrap();
    assert_eq!(exec.ended().await.1, said);
    // The caller's own are not passed on.
    let mut exec =
        world.exec("a", &bundle, &json!({"args": ["grep", "^Groups", "/proc/self/status"]})).await.unwrap();
    assert_eq!(exec.ended().await.1.split_whitespace().collect::<Vec<_>>(), ["Groups:"]);
    finish(running, &runtime).await;
}

async fn resources(world: World) {
    let (_bundle, running, runtime) =
        sleeper(&world, |spec| spec["linux"]["resources"]["pids"] = json!({"limit": 50})).await;
    assert_eq!(bundle::pids_max(running.pid()), "50");
    runtime.update("a", br#"{"pids":{"limit":77}}"#).await.unwrap();
    assert_eq!(bundle::pids_max(running.pid()), "77");
    assert!(runtime.update("a", b"[]").await.is_err());
    assert!(runtime.update("a", b"{").await.is_err());
    finish(running, &runtime).await;
}

async fn twice(world: World) {
    let (bundle, running, runtime) = sleeper(&world, |_| ()).await;
    assert!(world.try_create("a", &bundle).await.is_err());
    for id in ["", "..", "a/b", "../a", "-x"] {
        assert_eq!(
            world.try_create(id, &bundle).await.unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{id}"
        );
    }
    // The first one took no harm.
    assert_eq!(runtime.state("a").await.unwrap().pid, running.pid());
    finish(running, &runtime).await;
}

async fn overwrite(world: World) {
    // Whoever watches from inside must never get hold of the runtime's own file.
    let script = "echo ready; n=0; while [ $n -lt 300 ]; do n=$((n+1)); \
                  for p in /proc/[0-9]*; do [ $p = /proc/$$ ] || ( : >>$p/exe ) 2>/dev/null && [ $p != /proc/$$ ] && echo hit $p; done; \
                  done; echo end";
    let bundle = world.bundle_with(&["sh", "-c", script], |spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_KILL"]);
        }
        spec["root"]["readonly"] = true.into();
    });
    let mut running = world.start("a", &bundle).await;
    running.wait_for("ready\n").await;
    for _ in 0..5 {
        // An exec of `/proc/self/exe` is whatever the shell is, or a refusal; never a writable runtime.
        if let Ok(mut exec) = world.exec("a", &bundle, &json!({"args": ["true"]})).await {
            exec.ended().await;
        }
    }
    assert_eq!(running.ended().await.1, "ready\nend\n");
    world.runtime(&bundle).await.delete("a", false).await.unwrap();
}
