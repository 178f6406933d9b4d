//! `gantry gc` and `gantry fsck`: the questions are of gantryd only, and containerd says so.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_testkit::{
    Background, DaemonOptions, Output, Program, Registry, busybox_image, eventually, root, run, sha256,
};

use super::{Cli, command};
use crate::stage::BUSYBOX;

/// Keeps the collection at start from coming in between.
const LATE_COLLECTION: &str = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"";

/// A daemon of ours, or none if another one is under test.
fn ours() -> Option<DaemonOptions> {
    let program = Program::under_test();
    (!program.is_containerd()).then(|| DaemonOptions::new(program).config(LATE_COLLECTION))
}

fn content(root: &Path) -> PathBuf {
    root.join("io.containerd.content.v1.content")
}

fn blob(root: &Path, digest: &str) -> PathBuf {
    content(root).join("blobs").join(digest.replace(':', "/"))
}

fn snapshots(root: &Path) -> PathBuf {
    root.join("io.containerd.snapshotter.v1.overlayfs/snapshots")
}

#[test]
fn gantry_gc_explains_who_keeps_what_and_shows_what_would_go() {
    root!();
    let Some(options) = ours() else { return };
    let cli = Cli::with_busybox(options.start());
    let image = busybox_image();
    let (manifest, layer) = (image.digest(), image.layers[0].digest.as_str());
    let explained = cli.ok(&["gc", "explain", "content", layer]);
    let wanted = format!(
        "content {layer} in namespace default: kept\n  held by content {manifest}, by its label \
         containerd.io/gc.ref.content.l.0\n    held by image {BUSYBOX}, whose target it is\n      every image is a root: \
         gantry rmi {BUSYBOX} lets go\n"
    );
    assert_eq!(explained, wanted);
    // A short name will do.
    let explained = cli.ok(&["gc", "explain", "image", "busybox"]);
    assert!(
        explained.starts_with(&format!("image {BUSYBOX} in namespace default: kept\n  every image")),
        "{explained}"
    );

    cli.ctr.ok(&["containers", "create", BUSYBOX, "c1", "/bin/true"]);
    let explained = cli.ok(&["gc", "explain", "snapshot", "c1"]);
    assert!(
        explained.contains("held by container c1, whose file system it is\n    every container is a root: gantry rm c1 lets go"),
        "{explained}"
    );
    let listed = cli.ctr.names(&["snapshots", "ls"]);
    let base = listed.iter().find(|name| *name != "c1").expect("the layer's snapshot");
    let explained = cli.ok(&["gc", "explain", "snapshot", base]);
    for part in [
        "held by snapshot c1 (overlayfs), which stands on it",
        "held by content",
        "gantry rmi",
        "gantry rm c1",
    ] {
        assert!(explained.contains(part), "no {part:?} in {explained}");
    }
    cli.ctr.ok(&["leases", "create", "--id", "l1"]);
    let explained = cli.ok(&["gc", "explain", "lease", "l1"]);
    assert!(
        explained.contains("a lease is a root until") && explained.contains(": ctr leases rm l1 lets go"),
        "{explained}"
    );

    // What the import brought and no image refers to: the archive's index.
    cli.ok(&["gc", "run"]);
    assert_eq!(cli.ok(&["gc", "preview"]), "nothing: everything is kept\n");
    let mut ingest = cli.ctr.spawn_with_input(&["content", "ingest", "loose"]);
    {
        use std::io::Write;
        ingest.stdin().write_all(b"nobody wants this").unwrap();
    }
    ingest.close_stdin();
    ingest.wait().expect_success("ctr content ingest");
    let loose = &sha256(b"nobody wants this");
    cli.ctr.ok(&["content", "label", loose, "containerd.io/gc.root=x"]);
    let explained = cli.ok(&["gc", "explain", "content", loose]);
    let lets_go = format!("ctr content label {loose} containerd.io/gc.root= lets go");
    assert!(explained.contains(&lets_go), "{explained}");
    // The very command that was told.
    cli.ctr.ok(&["content", "label", loose, "containerd.io/gc.root="]);
    let explained = cli.ok(&["gc", "explain", "content", loose]);
    assert!(explained.contains("nothing keeps it"), "{explained}");
    let shown = cli.ok(&["gc", "preview"]);
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["default", "content", loose, "17", "B", "17", "B", "unreferenced"], "{shown}");
    assert!(shown.ends_with("1 objects; 17 B would be free\n"), "{shown}");
    assert_eq!(cli.ok(&["-n", "other", "gc", "preview"]), "nothing: everything is kept\n");
    assert!(blob(cli.daemon.root(), loose).exists());
    let collected = cli.ok(&["gc", "run"]);
    assert!(collected.contains(" 1 blobs, 0 snapshots, 0 images"), "{collected}");
    assert!(!blob(cli.daemon.root(), loose).exists());

    let missing = cli.fails(&["gc", "explain", "content", loose]);
    assert!(missing.starts_with("gantry: ask who keeps it: ") && missing.contains("not found"), "{missing}");
    assert!(missing.contains("\nhint: there is none of that name in namespace default"), "{missing}");
    cli.ctr.ok(&["leases", "rm", "l1"]);
    cli.ok(&["rm", "c1"]);
    cli.close();
}

#[test]
fn gantry_gc_and_fsck_say_that_containerd_cannot_answer() {
    root!();
    let cli = Cli::with_busybox(DaemonOptions::new(Program::containerd()).start());
    let said = cli.fails(&["gc", "explain", "image", "busybox"]);
    assert!(said.ends_with("hint: this daemon is not gantryd, which alone can answer\n"), "{said}");
    assert_eq!(cli.ok(&["gc", "run"]), "collected\n");
    let output = cli.run(&["fsck"]);
    assert_eq!(output.code, 8, "{output:?}");
    assert!(output.stderr.contains("this daemon is not gantryd"), "{output:?}");
}

/// A check, which must end with `code`; what it printed.
fn fsck(cli: &Cli, flags: &[&str], code: i32) -> String {
    let output = cli.run(&[&["fsck"], flags].concat());
    assert_eq!((output.code, output.stderr.as_str()), (code, ""), "fsck {flags:?}: {output:?}");
    output.stdout
}

#[test]
fn gantry_fsck_of_a_running_daemon_repairs_so_that_a_pull_makes_it_whole() {
    root!();
    let Some(options) = ours() else { return };
    let registry = Registry::start();
    let image = busybox_image();
    let reference = registry.push(&image, "library/busybox:1");
    let cli = Cli::on(options.start());
    cli.ok(&["pull", "--plain-http", &reference]);
    let clean = fsck(&cli, &["--deep"], 0);
    assert!(
        clean.starts_with("checked 3 blobs, 0 writes in progress, 1 snapshots and 1 other records"),
        "{clean}"
    );
    assert!(clean.ends_with(": no damage\n"), "{clean}");

    let (root, layer) = (cli.daemon.root().to_owned(), image.layers[0].digest.as_str());
    let path = blob(&root, layer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
    // Its length is right: only reading it tells.
    fsck(&cli, &[], 0);
    let found = fsck(&cli, &["--deep"], 4);
    assert!(found.starts_with(&format!("blob-damaged: content {layer} in namespace default: ")), "{found}");
    assert!(found.contains(&format!("needed by {reference}; --repair puts the file aside")), "{found}");
    let repaired = fsck(&cli, &["--deep", "--repair"], 1);
    let aside = content(&root).join("damaged").join(layer.replace(':', "-"));
    assert!(repaired.contains(&format!("repaired: moved the file to {}", aside.display())), "{repaired}");
    assert!(aside.exists() && !path.exists());
    fsck(&cli, &["--deep", "--repair"], 0);
    cli.ok(&["pull", "--plain-http", &reference]);
    assert!(path.exists(), "the pull has fetched it again");
    assert!(fsck(&cli, &["--deep"], 0).contains("checked 3 blobs"));

    fs::remove_file(&path).unwrap();
    fs::create_dir(snapshots(&root).join("4242")).unwrap();
    let found: Vec<serde_json::Value> =
        fsck(&cli, &["--json"], 4).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let findings: Vec<&serde_json::Value> = found.iter().filter(|event| event["type"] == "finding").collect();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert_eq!((&findings[0]["problem"], &findings[0]["name"]), (&"blob-missing".into(), &layer.into()));
    assert_eq!(findings[1]["problem"], "directory-without-record");
    let summary = found.last().unwrap();
    assert_eq!((&summary["type"], &summary["repairable"]), (&"summary".into(), &2.into()));
    fsck(&cli, &["--repair"], 1);
    fsck(&cli, &["--repair"], 0);
    cli.ok(&["pull", "--plain-http", &reference]);
    assert_eq!(cli.ok(&["run", "--rm", &reference, "c1", "/bin/echo", "whole"]), "whole\n");
    cli.ok(&["rmi", &reference]);
    cli.close();
}

/// A check of a root, whose daemon `cli` cannot be reached.
fn fsck_root(cli: &Cli, flags: &[&str]) -> Output {
    let root = cli.daemon.root().to_string_lossy().into_owned();
    let config = cli.daemon.dir().join("config.toml").to_string_lossy().into_owned();
    let nowhere = cli.daemon.dir().join("nowhere.sock");
    run(&mut command(&nowhere, &[&["fsck", "--root", &root, "--config", &config], flags].concat()))
}

#[test]
fn gantry_fsck_of_a_stopped_root_finds_and_repairs_each_kind_of_damage() {
    root!();
    let Some(options) = ours() else { return };
    let mut cli = Cli::with_busybox(options.start());
    cli.ctr.ok(&["containers", "create", BUSYBOX, "c1", "/bin/true"]);
    let image = busybox_image();
    let root = cli.daemon.root().to_owned();
    // While a daemon uses it, it is that daemon who is asked, or nobody.
    let refused = fsck_root(&cli, &[]);
    assert_eq!(refused.code, 8, "{refused:?}");
    assert!(refused.stderr.contains(&format!("in use by process {}", cli.daemon.pid())), "{refused:?}");
    assert!(fsck(&cli, &["--root", &root.to_string_lossy()], 0).ends_with(
        ": no damage
"
    ));
    cli.daemon.stop();
    let check = |flags: &[&str], code: i32| {
        let output = fsck_root(&cli, flags);
        assert_eq!((output.code, output.stderr.as_str()), (code, ""), "fsck {flags:?}: {output:?}");
        output.stdout
    };
    assert!(check(&["--deep"], 0).ends_with(": no damage\n"));

    let active = {
        let mut work = fs::read_dir(snapshots(&root)).unwrap().map(|entry| entry.unwrap().path());
        work.find(|path| path.join("work").exists() && fs::read_dir(path.join("fs")).unwrap().count() == 0)
            .expect("the container's snapshot")
    };
    let layer = image.layers[0].digest.as_str();
    type Break<'a> = Box<dyn Fn() + 'a>;
    let damages: Vec<(&str, Break<'_>)> = vec![
        (
            "blob-without-record",
            Box::new(|| {
                let orphan = blob(&root, &format!("sha256:{}", "0".repeat(64)));
                fs::write(orphan, "orphan").unwrap();
            }),
        ),
        (
            "stray-file",
            Box::new(|| {
                let remains = content(&root).join("ingest").join("1".repeat(64));
                fs::create_dir(&remains).unwrap();
                fs::write(remains.join("ref"), "default/1/x").unwrap();
            }),
        ),
        ("directory-without-record", Box::new(|| fs::create_dir(snapshots(&root).join("4242")).unwrap())),
        ("snapshot-incomplete", Box::new(|| fs::remove_dir_all(active.join("work")).unwrap())),
        ("blob-missing", Box::new(|| fs::remove_file(blob(&root, layer)).unwrap())),
    ];
    for (problem, damage) in &damages {
        damage();
        let found = check(&[], 4);
        assert!(found.starts_with(&format!("{problem}: ")), "{problem}: {found}");
        assert_eq!(check(&[], 4), found, "{problem}: looking changes nothing");
        let repaired = check(&["--repair"], 1);
        assert!(
            repaired.starts_with(&format!("{problem}: ")) && repaired.contains("repaired: "),
            "{repaired}"
        );
        check(&["--deep", "--repair"], 0);
    }
    // What a person put there stays.
    let own = content(&root).join("blobs/sha256/notes.txt");
    fs::write(&own, "mine").unwrap();
    let noted = check(&["--repair"], 0);
    assert!(noted.contains("stray-file: ") && noted.contains("notes.txt"), "{noted}");
    assert!(own.exists());
    fs::remove_file(own).unwrap();
    // A container that lost its files is left to its owner.
    fs::rename(&active, cli.daemon.dir().join("taken")).unwrap();
    let left = check(&["--repair"], 4);
    assert!(left.contains("snapshot-missing: snapshot c1 (overlayfs)"), "{left}");
    assert!(left.contains("gantry rm c1 removes both"), "{left}");
    fs::rename(cli.daemon.dir().join("taken"), &active).unwrap();
    check(&["--repair"], 0);
    // A file that is no database any more: that is damage too.
    let database = root.join("gantry/store.db");
    let sound = fs::read(&database).unwrap();
    let mut bytes = sound.clone();
    bytes[..100].fill(0xff);
    fs::write(&database, bytes).unwrap();
    let damaged = fsck_root(&cli, &[]);
    assert_eq!(damaged.code, 4, "{damaged:?}");
    assert!(damaged.stdout.starts_with("database-damaged: "), "{damaged:?}");
    fs::write(&database, sound).unwrap();

    cli.daemon.start();
    cli.ok(&["rm", "c1"]);
    cli.ok(&["rmi", BUSYBOX]);
    cli.close();
}

#[test]
fn gantry_fsck_of_no_root_says_so() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let output =
        run(&mut command(&dir.path().join("s.sock"), &["fsck", "--root", &dir.path().to_string_lossy()]));
    assert_eq!(output.code, 8, "{output:?}");
    assert!(output.stderr.contains("no database") && output.stderr.contains("store.db"), "{output:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    let output = run(&mut command(&dir.path().join("s.sock"), &["fsck"]));
    assert_eq!(output.code, 8, "{output:?}");
}

#[test]
fn gantry_fsck_beside_running_containers_and_pulls_finds_nothing() {
    root!();
    let Some(options) = ours() else { return };
    let registry = Registry::start();
    let reference = registry.push(&busybox_image(), "library/busybox:1");
    let cli = Cli::on(options.start());
    let script = format!(
        "i=0; while [ ! -e stop ]; do i=$((i+1)); \"$GANTRY\" -a \"$ADDRESS\" pull --plain-http {reference} >/dev/null || exit 1; \
         \"$GANTRY\" -a \"$ADDRESS\" run --rm {reference} load$i /bin/true || exit 2; \"$GANTRY\" -a \"$ADDRESS\" rmi {reference} \
         >/dev/null || exit 3; echo round $i; done"
    );
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg(script).current_dir(cli.daemon.dir());
    shell.env("GANTRY", gantry_testkit::bin_dir().join("gantry")).env("ADDRESS", cli.daemon.address());
    let mut load = Background::spawn(&mut shell);
    load.wait_for_output("round 1\n");
    for round in 0..8 {
        let printed = fsck(&cli, if round % 2 == 0 { &["--deep"] } else { &["--repair"] }, 0);
        assert_eq!(printed.lines().count(), 1, "round {round}: {printed}");
    }
    fs::write(cli.daemon.dir().join("stop"), "").unwrap();
    load.wait().expect_success("pulls and runs");
    eventually("the store to be sound", || {
        let output = cli.run(&["fsck", "--deep"]);
        (output.code == 0).then_some(())
    });
    cli.close();
}
