//! A root changes hands: from containerd to gantryd in place, back, and to gantryd again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gantry_testkit::{
    Background, Compression, Ctr, Daemon, DaemonOptions, FakeRegistry, Fault, ImageBuilder, Program,
    busybox_image, busybox_layer, eventually, normalise, root, sha256, workspace_root,
};

use crate::stage::BUSYBOX;

const NAMESPACES: [&str; 3] = ["alpha", "beta", "k8s.io"];
/// Every image has one of these tags as well.
const TAGS: usize = 50;
/// Runs until it is told to end, and ends with 7.
const SCRIPT: &str = "trap 'exit 7' TERM; echo kept > /kept; while true; do sleep 0.1; done";
/// Keeps collections to those that the story asks for.
const LATE_COLLECTION: &str = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"";

fn options(program: Program, dir: &Path) -> DaemonOptions {
    DaemonOptions::new(program).dir(dir).config(LATE_COLLECTION)
}

/// Puts everything into the root that a busy node has.
fn fill(daemon: &Daemon) {
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    let archive = archive.to_string_lossy().into_owned();
    for namespace in NAMESPACES {
        let ctr = daemon.ctr().in_namespace(namespace);
        ctr.ok(&["images", "import", &archive]);
        ctr.ok(&["namespaces", "label", namespace, &format!("team={namespace}"), "note=a b/c"]);
        ctr.ok(&["images", "label", BUSYBOX, "purpose=test", "weird.key/with-dash=x"]);
        for digest in ctr.names(&["content", "ls"]) {
            ctr.ok(&["content", "label", &digest, "seen=yes"]);
        }
        ctr.ok(&["leases", "create", "--id", "kept", "--expires", "48h", "colour=blue"]);
        ctr.ok(&["leases", "create", "--id", "forever", "--expires", "0s"]);
        ctr.ok(&["run", "-d", "--label", "app=web", BUSYBOX, "web", "/bin/sh", "-c", SCRIPT]);
        ctr.ok(&["containers", "create", "--label", "app=idle", BUSYBOX, "idle", "/bin/true"]);
        let chain = committed(&ctr, "overlayfs")[0].clone();
        ctr.ok(&["snapshots", "prepare", "work", &chain]);
        ctr.ok(&["snapshots", "commit", "made", "work"]);
        ctr.ok(&["snapshots", "prepare", "top", "made"]);
        ctr.ok(&["snapshots", "view", "look", &chain]);
        ctr.ok(&["snapshots", "label", "top", "purpose=test", "containerd.io/gc.root=now"]);
        ctr.ok(&["snapshots", "label", "look", "containerd.io/gc.root=now"]);
    }
    let alpha = daemon.ctr().in_namespace("alpha");
    for tag in 0..TAGS {
        alpha.ok(&["images", "tag", BUSYBOX, &format!("docker.io/library/busybox:tag{tag}")]);
    }
    alpha.ok(&["run", "-d", BUSYBOX, "stays", "/bin/sh", "-c", SCRIPT]);
    // Both snapshotters number their directories from 1.
    let beta = daemon.ctr().in_namespace("beta");
    beta.ok(&["images", "import", "--snapshotter", "native", &archive]);
    beta.ok(&["run", "-d", "--snapshotter", "native", BUSYBOX, "copied", "/bin/sh", "-c", SCRIPT]);
    half_pulled(&beta);
    half_written(&alpha);
    for namespace in NAMESPACES {
        collect(&daemon.ctr().in_namespace(namespace));
    }
}

/// A pull whose client is killed: a lease with content and an ingest.
fn half_pulled(ctr: &Ctr) {
    let layer = busybox_layer().file("more", 0o644, "x".repeat(100_000));
    let image = ImageBuilder::new().layer(layer, Compression::None).build();
    let registry = FakeRegistry::start();
    let reference = registry.offer(&image, "team/app:1");
    registry.set_fault(Some(Fault::Stalled(image.layers[0].digest.clone())));
    let mut pull = ctr.spawn(&["images", "pull", "--plain-http", &reference]);
    eventually("the ingest of the layer", || {
        ctr.ok(&["content", "active"]).contains("layer-sha256").then_some(())
    });
    pull.kill();
}

/// A write whose client is killed.
fn half_written(ctr: &Ctr) {
    let mut write = ctr.spawn_with_input(&["content", "ingest", "half"]);
    write.stdin().write_all(&[b'h'; 5000]).unwrap();
    eventually("the ingest", || ctr.ok(&["content", "active"]).contains("half").then_some(()));
    write.kill();
}

fn committed(ctr: &Ctr, snapshotter: &str) -> Vec<String> {
    let table = ctr.ok(&["snapshots", "--snapshotter", snapshotter, "ls"]);
    let rows = table.lines().filter(|line| line.trim_end().ends_with("Committed"));
    rows.filter_map(|row| row.split_whitespace().next().map(str::to_owned)).collect()
}

/// Has garbage collected, and waits for it.
fn collect(ctr: &Ctr) {
    ctr.ok(&["images", "tag", BUSYBOX, "docker.io/library/busybox:passing"]);
    ctr.ok(&["images", "rm", "--sync", "docker.io/library/busybox:passing"]);
}

/// Everything that clients are told, by what they asked for.
fn told(daemon: &Daemon) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    // The width of columns follows ages.
    let lines = |text: &str| {
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut lines: Vec<String> = text.lines().map(line).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    for namespace in NAMESPACES {
        let ctr = daemon.ctr().in_namespace(namespace);
        let mut ask = |args: &[&str], exact: bool| {
            let printed = ctr.ok(args);
            // Tables have ages in them, and labels in any order; what is exact has its times compared too.
            let shown = if exact { lines(&printed) } else { lines(&normalise(&printed)) };
            told.insert(format!("{namespace}: {}", args.join(" ")), shown);
        };
        for args in [
            &["namespaces", "ls"][..],
            &["images", "ls"],
            &["content", "ls"],
            &["content", "active"],
            &["containers", "ls"],
            &["tasks", "ls"],
        ] {
            ask(args, false);
        }
        ask(&["leases", "ls"], false);
        for container in ctr.names(&["containers", "ls"]) {
            ask(&["containers", "info", &container], true);
        }
        for snapshotter in ["overlayfs", "native"] {
            let with =
                |args: &[&str]| [&["snapshots", "--snapshotter", snapshotter][..], args].concat().join("\0");
            let listed = with(&["ls"]);
            let listed: Vec<&str> = listed.split('\0').collect();
            ask(&listed, true);
            for snapshot in ctr.names(&listed) {
                let info = with(&["info", &snapshot]);
                ask(&info.split('\0').collect::<Vec<_>>(), true);
            }
            for snapshot in committed(&ctr, snapshotter) {
                let usage = with(&["usage", &snapshot]);
                ask(&usage.split('\0').collect::<Vec<_>>(), true);
            }
        }
        for active in ["web", "top", "look"] {
            // Where index=off stands among the options differs between versions of containerd.
            let mounts = ctr.ok(&["snapshots", "mounts", "/somewhere", active]);
            let mut options: Vec<&str> = mounts.trim().split([' ', ',']).collect();
            options.sort_unstable();
            told.insert(format!("{namespace}: mounts of {active}"), options.join(" "));
        }
    }
    told
}

fn assert_told(daemon: &Daemon, before: &BTreeMap<String, String>, when: &str) {
    let now = told(daemon);
    let mut differences = String::new();
    for name in before.keys().chain(now.keys().filter(|name| !before.contains_key(*name))) {
        if before.get(name) != now.get(name) {
            differences.push_str(&format!(
                "{name}\n--- before\n{:?}\n--- now\n{:?}\n",
                before.get(name),
                now.get(name)
            ));
        }
    }
    assert!(differences.is_empty(), "{when}:\n{differences}");
}

/// The digests of containerd's own files.
fn own_files(root: &Path) -> BTreeMap<PathBuf, String> {
    let names = [
        "io.containerd.metadata.v1.bolt/meta.db",
        "io.containerd.snapshotter.v1.overlayfs/metadata.db",
        "io.containerd.snapshotter.v1.native/metadata.db",
    ];
    names
        .iter()
        .map(|name| root.join(name))
        .map(|path| (path.clone(), sha256(&fs::read(path).unwrap())))
        .collect()
}

/// Starts gantryd, which must refuse; what it said.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let options =
        arguments.iter().fold(options(Program::gantryd(), dir), |options, word| options.argument(word));
    let output = Background::spawn(&mut options.prepare().command()).wait();
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("failed precondition"), "{output:?}");
    format!("{}{}", output.stdout, output.stderr)
}

/// The pids of running tasks.
fn running(ctr: &Ctr) -> BTreeMap<String, String> {
    let table = ctr.ok(&["tasks", "ls"]);
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == "RUNNING").map(|row| (row[0].to_owned(), row[1].to_owned())).collect()
}

fn execs(ctr: &Ctr, container: &str) {
    let printed = ctr.ok(&["tasks", "exec", "--exec-id", "e1", container, "/bin/cat", "/kept"]);
    assert_eq!(printed, "kept\n", "an exec in {container}");
}

/// The story, with containerd as `peer`.
fn changes_hands(peer: &Program) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let mut containerd = options(peer.clone(), dir).start();
    fill(&containerd);
    let before = told(&containerd);
    let alpha = containerd.ctr().in_namespace("alpha");
    let tasks = running(&alpha);
    assert_eq!(tasks.len(), 2);
    let while_it_lives = refused(dir, &["--takeover=on"]);
    assert!(while_it_lives.contains(&format!("in use by process {}", containerd.pid())), "{while_it_lives}");
    containerd.stop();
    drop(containerd);

    // To gantryd: first it says what it would do.
    let root = dir.join("root");
    let files = own_files(&root);
    let said = refused(dir, &[]);
    for part in
        ["namespace alpha: 3 containers, 51 images", "namespace k8s.io:", "--takeover=on", "of native"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let json = refused(dir, &["--takeover-format=json"]);
    let json = &json[..json.find("gantryd: ").unwrap()];
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(report["namespaces"]["alpha"]["images"], TAGS + 1, "{report}");
    assert!(!root.join("gantry").exists(), "a check writes nothing");
    let mut gantryd = options(Program::gantryd(), dir).argument("--takeover=on").start();
    assert_told(&gantryd, &before, "after the takeover");
    for namespace in NAMESPACES {
        let ctr = gantryd.ctr().in_namespace(namespace);
        execs(&ctr, "web");
        collect(&ctr);
    }
    execs(&gantryd.ctr().in_namespace("beta"), "copied");
    assert_told(&gantryd, &before, "after a collection");
    assert_eq!(own_files(&root), files, "containerd's files are as they were");

    // Now it is used: a container of ours on layers of theirs, an end with its status, a write that goes on.
    assert_eq!(
        alpha.ok(&["run", "--rm", BUSYBOX, "ours", "/bin/echo", "on their layer"]),
        "on their layer\n"
    );
    let mut events = alpha.spawn(&["events"]);
    eventually("the subscription", || {
        alpha.ok(&["namespaces", "label", "alpha", "a=b"]);
        events.stdout().contains("/namespaces/update").then_some(())
    });
    alpha.ok(&["tasks", "kill", "-s", "SIGTERM", "web"]);
    events.wait_for_output("/tasks/exit");
    let exit = events.stdout().lines().find(|line| line.contains("/tasks/exit")).unwrap().to_owned();
    assert!(exit.contains(r#""container_id":"web""#) && exit.contains(r#""exit_status":7"#), "{exit}");
    drop(events);
    let _ = alpha.run(&["tasks", "rm", "web"]);
    alpha.ok(&["containers", "rm", "web"]);
    let mut write = alpha.spawn_with_input(&["content", "ingest", "--expected-size", "8000", "half"]);
    write.stdin().write_all(&[b'h'; 8000]).unwrap();
    write.close_stdin();
    assert!(write.wait().success(), "{}", write.stderr());
    assert!(alpha.names(&["content", "ls"]).contains(&sha256(&[b'h'; 8000])));
    gantryd.stop();
    drop(gantryd);
    // A later start needs no word.
    let mut gantryd = options(Program::gantryd(), dir).start();
    assert_eq!(running(&alpha)["stays"], tasks["stays"]);
    gantryd.stop();
    drop(gantryd);

    // Back: containerd goes on from where it was, with what was not taken away meanwhile.
    let mut containerd = options(peer.clone(), dir).start();
    assert_eq!(running(&alpha)["stays"], tasks["stays"]);
    execs(&alpha, "stays");
    assert_eq!(alpha.names(&["images", "ls"]).len(), TAGS + 1);
    assert_eq!(alpha.ok(&["run", "--rm", BUSYBOX, "theirs", "/bin/echo", "back"]), "back\n");
    collect(&alpha);
    let back = running(&containerd.ctr().in_namespace("beta"));
    let container = alpha.ok(&["containers", "info", "stays"]);
    containerd.stop();
    drop(containerd);

    // And to gantryd again, which does not choose by itself whose records count.
    let said = refused(dir, &["--takeover=on"]);
    assert!(said.contains("--takeover=again") && said.contains("transaction"), "{said}");
    let mut gantryd = options(Program::gantryd(), dir).argument("--takeover=again").start();
    assert_eq!(alpha.ok(&["containers", "info", "stays"]), container);
    assert_eq!(running(&gantryd.ctr().in_namespace("beta")), back);
    execs(&alpha, "stays");
    for namespace in NAMESPACES {
        let ctr = gantryd.ctr().in_namespace(namespace);
        for lease in ctr.names(&["leases", "ls"]) {
            ctr.ok(&["leases", "rm", "--sync", &lease]);
        }
        for task in ctr.names(&["tasks", "ls"]) {
            let _ = ctr.run(&["tasks", "rm", "--force", &task]);
        }
        for container in ctr.names(&["containers", "ls"]) {
            ctr.ok(&["containers", "rm", &container]);
        }
        eventually("native snapshots to go", || {
            let left = ctr.names(&["snapshots", "--snapshotter", "native", "ls"]);
            for snapshot in &left {
                let _ = ctr.run(&["snapshots", "--snapshotter", "native", "rm", snapshot]);
            }
            left.is_empty().then_some(())
        });
        gantryd.clear(namespace);
    }
    gantryd.stop();
}

#[test]
fn debians_containerd_hands_over_its_root_and_takes_it_back() {
    root!();
    if Program::under_test().is_containerd() {
        // A story of two daemons; ours is the one that takes over.
        return;
    }
    changes_hands(&Program::containerd());
}

#[test]
fn the_current_containerd_hands_over_its_root_and_takes_it_back() {
    root!();
    let dir =
        std::env::var_os("GANTRY_GO_BIN").map_or_else(|| workspace_root().join("target/go"), PathBuf::from);
    let path = dir.join("containerd");
    if !path.exists() {
        gantry_testkit::skip!("no Go: cargo xtask e2e builds containerd's modules where it is installed");
    }
    changes_hands(&Program { name: "the current containerd".to_owned(), path, shims: Some(dir) });
}
