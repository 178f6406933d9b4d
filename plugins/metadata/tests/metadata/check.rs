use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::content::{ContentStore, OpenWriter};
use gantry_core::images::ImageStore;
use gantry_core::maintenance::Maintenance;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions, CheckSummary, Finding, Outcome, Problem};
use gantry_core::snapshots::Snapshotter;
use gantry_core::{ContainerId, Context, Digest, ErrorKind, IngestRef, Labels};

use crate::collection::pull_and_run;
use crate::images::image;
use crate::snapshots::{commit, committed, new};
use crate::support::{World, cx, key, labels};

const ROOT: (&str, &str) = ("containerd.io/gc.root", "x");

fn n() -> Context {
    cx("n")
}

const LOOK: CheckOptions = CheckOptions { deep: true, repair: false };
const REPAIR: CheckOptions = CheckOptions { deep: true, repair: true };

async fn check(world: &World, options: CheckOptions) -> (Vec<Finding>, CheckSummary) {
    let mut events = world.metadata.maintenance().check(&Context::background(), options).await.unwrap();
    let (mut findings, mut summary) = (Vec::new(), None);
    while let Some(event) = events.try_next().await.unwrap() {
        assert!(summary.is_none(), "the summary comes last");
        match event {
            CheckEvent::Progress { .. } => {}
            CheckEvent::Finding(finding) => findings.push(finding),
            CheckEvent::Summary(last) => summary = Some(last),
        }
    }
    (findings, summary.expect("a summary"))
}

fn sql(root: &Path, text: &str) {
    let database = rusqlite::Connection::open(root.join("gantry/store.db")).unwrap();
    database.pragma_update(None, "foreign_keys", false).unwrap();
    database.execute_batch(text).unwrap();
}

/// A store with an image, a container on a chain of three snapshots, and a write in progress.
async fn populate(world: &World) -> Digest {
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    committed(&snapshotter, &n(), "base", None).await;
    snapshotter.prepare(&n(), new("x", Some("base"))).await.unwrap();
    snapshotter.commit(&n(), commit("mid", "x")).await.unwrap();
    snapshotter.prepare(&n(), new("root", Some("mid"))).await.unwrap();
    let mut container = Container::new(ContainerId::parse("c").unwrap(), "runtime");
    container.snapshotter = "plain".into();
    container.snapshot_key = "root".into();
    world.metadata.containers().create(&n(), container).await.unwrap();
    let rooted = gantry_core::snapshots::NewSnapshot { labels: labels(&[ROOT]), ..new("free", None) };
    snapshotter.prepare(&n(), rooted).await.unwrap();
    let layer = world.blob(&n(), b"the layer", Labels::new()).await;
    let refers = labels(&[("containerd.io/gc.ref.content.l.0", layer.as_str())]);
    let manifest = world.blob(&n(), b"the manifest", refers).await;
    let mut new = image("docker.io/library/i:1");
    new.target.digest = manifest;
    new.labels = labels(&[("a", "b")]);
    world.metadata.images().create(&n(), new, None).await.unwrap();
    let reference = IngestRef::parse("half").unwrap();
    let open = OpenWriter { reference, total_bytes: 0, expected: None };
    let mut writer = world.metadata.content().writer(&n(), open).await.unwrap();
    writer.write(Bytes::from_static(b"half a blob")).await.unwrap();
    drop(writer);
    world.metadata.collect().await.unwrap();
    layer
}

#[tokio::test]
async fn a_sound_store_is_without_findings_running_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    populate(&world).await;
    let (findings, summary) = check(&world, REPAIR).await;
    assert_eq!(findings, []);
    let wanted = CheckSummary {
        blobs: 2,
        hashed_bytes: "the layerthe manifest".len() as u64,
        ingests: 1,
        snapshots: 4,
        others: 2,
        ..CheckSummary::default()
    };
    assert_eq!(summary, wanted);
    assert_eq!(summary.exit_status(), 0);
    assert_eq!(
        summary.to_string(),
        "checked 2 blobs, 1 writes in progress, 4 snapshots and 2 other records, read 21 bytes: no damage"
    );
    let refused = World::open_as_is(dir.path()).await.err().unwrap();
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    let world = World::open_as_is(dir.path()).await.unwrap();
    assert_eq!(check(&world, LOOK).await, (Vec::new(), wanted));
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    let missing = World::open_as_is(&dir.path().join("elsewhere")).await.err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// A kind of damage, and what a check makes of it with repair.
struct Damage {
    problem: Problem,
    outcome: Outcome,
    /// A part of the finding's text.
    says: &'static str,
    make: fn(&Path, &Digest),
}

fn blob(root: &Path, digest: &Digest) -> std::path::PathBuf {
    root.join("content/blobs").join(digest.as_str())
}

fn directory(root: &Path, key: &str) -> std::path::PathBuf {
    let database = rusqlite::Connection::open(root.join("gantry/store.db")).unwrap();
    let number: i64 = database
        .query_row("SELECT directory FROM snapshots WHERE key = ?1", [key], |row| row.get(0))
        .unwrap();
    root.join("snapshots").join(number.to_string())
}

const DAMAGES: &[Damage] = &[
    Damage {
        problem: Problem::BlobMissing,
        outcome: Outcome::Repaired,
        says: "needed by docker.io/library/i:1",
        make: |root, layer| fs::remove_file(blob(root, layer)).unwrap(),
    },
    Damage {
        problem: Problem::BlobDamaged,
        outcome: Outcome::Repaired,
        says: "needed by docker.io/library/i:1",
        make: |root, layer| fs::write(blob(root, layer), "the LAYER").unwrap(),
    },
    Damage {
        problem: Problem::BlobDamaged,
        outcome: Outcome::Repaired,
        says: "a pull fetches it again",
        make: |root, layer| fs::write(blob(root, layer), "the").unwrap(),
    },
    Damage {
        problem: Problem::BlobSize,
        outcome: Outcome::Repaired,
        says: "77 recorded, 9 bytes in the file",
        make: |root, layer| sql(root, &format!("UPDATE blobs SET size = 77 WHERE digest = '{layer}'")),
    },
    Damage {
        problem: Problem::BlobWithoutRecord,
        outcome: Outcome::Repaired,
        says: "6 bytes",
        make: |root, _| fs::write(blob(root, &crate::support::digest_of(b"orphan")), "orphan").unwrap(),
    },
    Damage {
        problem: Problem::RecordUnreadable,
        outcome: Outcome::Repaired,
        says: "invalid checksum digest format",
        make: |root, _| sql(root, "INSERT INTO blobs VALUES (99, 'n', 'nonsense', 1, '0.0', '0.0')"),
    },
    Damage {
        problem: Problem::IngestWithoutRecord,
        outcome: Outcome::Repaired,
        says: "11 bytes",
        make: |root, _| sql(root, "DELETE FROM ingests"),
    },
    Damage {
        problem: Problem::DirectoryWithoutRecord,
        outcome: Outcome::Repaired,
        says: "/snapshots/4242; repaired: removed it",
        make: |root, _| fs::create_dir(root.join("snapshots/4242")).unwrap(),
    },
    Damage {
        problem: Problem::SnapshotMissing,
        outcome: Outcome::Repaired,
        says: "snapshot free (plain) in namespace n",
        make: |root, _| fs::remove_dir_all(directory(root, "free")).unwrap(),
    },
    Damage {
        problem: Problem::SnapshotMissing,
        outcome: Outcome::Left,
        says: "container \\\"c\\\" uses it",
        make: |root, _| fs::remove_dir_all(directory(root, "root")).unwrap(),
    },
    Damage {
        problem: Problem::SnapshotMissing,
        outcome: Outcome::Left,
        says: "snapshot \\\"mid\\\" stands on it",
        make: |root, _| fs::remove_dir_all(directory(root, "base")).unwrap(),
    },
    Damage {
        problem: Problem::ParentBroken,
        outcome: Outcome::Left,
        says: "record 4711 is not there",
        make: |root, _| sql(root, "UPDATE snapshots SET parent = 4711 WHERE key = 'mid'"),
    },
    Damage {
        problem: Problem::RowWithoutOwner,
        outcome: Outcome::Repaired,
        says: "1 labels of images",
        make: |root, _| sql(root, "INSERT INTO labels VALUES (3, 99, 'k', 'v')"),
    },
    Damage {
        problem: Problem::RowWithoutOwner,
        outcome: Outcome::Repaired,
        says: "1 resources of leases",
        make: |root, _| {
            sql(root, "INSERT INTO lease_resources (lease, kind, name) VALUES (9, 'images', 'i')")
        },
    },
    Damage {
        problem: Problem::NamespaceMissing,
        outcome: Outcome::Repaired,
        says: "made the namespace",
        make: |root, _| sql(root, "DELETE FROM namespaces"),
    },
    Damage {
        problem: Problem::IndexDamaged,
        outcome: Outcome::Repaired,
        says: "rebuilt blobs_digest from the table",
        make: |root, _| {
            // The index forgets a row: SQLite is told that it is partial while one row is rewritten.
            sql(
                root,
                "PRAGMA writable_schema = 1;
                 UPDATE sqlite_schema SET sql = 'CREATE INDEX blobs_digest ON blobs (digest) WHERE id < 0' \
                 WHERE name = 'blobs_digest';
                 PRAGMA writable_schema = RESET;
                 UPDATE blobs SET digest = digest || '' WHERE id = 1;
                 DELETE FROM blobs WHERE id = 99;
                 INSERT INTO blobs SELECT 99, 'n', 'sha256:' || hex(zeroblob(32)), 1, '0.0', '0.0';
                 PRAGMA writable_schema = 1;
                 UPDATE sqlite_schema SET sql = 'CREATE INDEX blobs_digest ON blobs (digest)' WHERE name = 'blobs_digest';
                 PRAGMA writable_schema = RESET;",
            );
        },
    },
    Damage {
        problem: Problem::ContainerWithoutSnapshot,
        outcome: Outcome::Note,
        says: "snapshot \\\"root\\\" of plain",
        make: |root, _| {
            fs::remove_dir_all(directory(root, "root")).unwrap();
            sql(root, "DELETE FROM snapshots WHERE key = 'root'");
        },
    },
];

/// Whether what is left of the damage is told again.
fn remains(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Left | Outcome::Note)
}

async fn play(damage: &Damage, stopped: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::open(dir.path()).await;
    let layer = populate(&world).await;
    if stopped {
        world.metadata.close(Duration::from_secs(5)).await.unwrap();
    }
    (damage.make)(dir.path(), &layer);
    if stopped {
        world = World::open_as_is(dir.path()).await.unwrap();
    }
    let what = format!("{:?} {} stopped={stopped}", damage.problem, damage.says);
    let find = |findings: &[Finding]| findings.iter().find(|found| found.problem == damage.problem).cloned();
    let (findings, summary) = check(&world, LOOK).await;
    let found = find(&findings).unwrap_or_else(|| panic!("{what}: not found in {findings:?}"));
    let wanted = if remains(damage.outcome) { damage.outcome } else { Outcome::Repairable };
    assert_eq!(found.outcome, wanted, "{what}: {found}");
    assert_eq!(summary.exit_status(), if damage.outcome == Outcome::Note { 0 } else { 4 }, "{what}");
    // Looking changed nothing.
    assert_eq!(check(&world, LOOK).await.0, findings, "{what}");

    let (findings, summary) = check(&world, REPAIR).await;
    let found = find(&findings).unwrap_or_else(|| panic!("{what}: not found in {findings:?}"));
    assert_eq!(found.outcome, damage.outcome, "{what}: {found}");
    assert!(found.to_string().contains(damage.says), "{what}: {found}");
    let status = match damage.outcome {
        Outcome::Note => 0,
        Outcome::Repaired => 1,
        _ => 4,
    };
    assert_eq!(summary.exit_status(), status, "{what}: {findings:?}");

    let (findings, summary) = check(&world, REPAIR).await;
    assert_eq!(find(&findings).is_some(), remains(damage.outcome), "{what}: {findings:?}");
    assert_eq!(summary.repaired, 0, "{what}: {findings:?}");
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_repaired_in_a_running_store() {
    for damage in DAMAGES {
        play(damage, false).await;
    }
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_repaired_in_a_stopped_one() {
    for damage in DAMAGES {
        play(damage, true).await;
    }
}

#[tokio::test]
async fn a_lost_chain_goes_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    populate(&world).await;
    world.metadata.containers().delete(&n(), "c").await.unwrap();
    for key in ["base", "mid", "root"] {
        fs::remove_dir_all(directory(dir.path(), key)).unwrap();
    }
    let (findings, summary) = check(&world, LOOK).await;
    assert_eq!((findings.len(), summary.repairable), (3, 3), "{findings:?}");
    let (findings, summary) = check(&world, REPAIR).await;
    assert_eq!(summary.exit_status(), 1, "{findings:?}");
    assert!(findings[0].to_string().contains("snapshot root (plain)"), "{findings:?}");
    assert_eq!(check(&world, REPAIR).await.0, []);
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    snapshotter.stat(&n(), &key("base")).await.unwrap_err();
    snapshotter.stat(&n(), &key("free")).await.unwrap();
}

#[tokio::test]
async fn a_write_without_data_is_a_note_while_running_and_goes_when_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    populate(&world).await;
    for entry in fs::read_dir(dir.path().join("content/ingest")).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let (findings, summary) = check(&world, REPAIR).await;
    assert_eq!(findings[0].problem, Problem::IngestWithoutData);
    assert_eq!((summary.notes, summary.exit_status()), (1, 0));
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    let world = World::open_as_is(dir.path()).await.unwrap();
    assert_eq!(check(&world, LOOK).await.1.repairable, 1);
    assert_eq!(check(&world, REPAIR).await.1.exit_status(), 1);
    assert_eq!(check(&world, REPAIR).await.0, []);
}

#[tokio::test]
async fn a_look_at_a_stopped_root_leaves_how_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open_with(dir.path(), Default::default(), Some("an earlier boot")).await;
    populate(&world).await;
    world.metadata.close(Duration::ZERO).await.unwrap();
    let left = || {
        let database = rusqlite::Connection::open(dir.path().join("gantry/store.db")).unwrap();
        let sql = "SELECT boot_id || clean FROM store_boot";
        database.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let before = left();
    let world = World::open_as_is(dir.path()).await.unwrap();
    let (findings, summary) = check(&world, REPAIR).await;
    // What was committed and not synced waits to be rebuilt.
    assert!(findings.iter().all(|found| found.problem == Problem::SnapshotSuspect), "{findings:?}");
    assert_eq!(summary.exit_status(), 0);
    world.metadata.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(left(), before);
}

#[tokio::test]
async fn one_check_runs_at_a_time_and_ends_with_who_asked() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    populate(&world).await;
    let maintenance = world.metadata.maintenance();
    let first = maintenance.check(&Context::background(), LOOK).await.unwrap();
    let second = maintenance.check(&Context::background(), LOOK).await.err().unwrap();
    assert_eq!(second.kind(), ErrorKind::Unavailable);
    drop(first);
    while maintenance.check(&Context::background(), LOOK).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn checks_beside_writers_and_collections_find_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::open(dir.path()).await);
    populate(&world).await;
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let rounds = Arc::new(AtomicU32::new(0));
    let mut load = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let done = Arc::clone(&rounds);
        let (world, snapshotter, stop) = (Arc::clone(&world), snapshotter.clone(), stop.clone());
        load.spawn(async move {
            for round in 0.. {
                if stop.is_cancelled() {
                    return;
                }
                pull_and_run(&world, &snapshotter, &format!("{writer}-{round}")).await;
                let loose = format!("loose {writer} {round}");
                let digest = world.blob(&n(), loose.as_bytes(), labels(&[ROOT])).await;
                world.metadata.content().delete(&n(), &digest).await.unwrap();
                let (key, reference) = (format!("k{writer}-{round}"), IngestRef::parse(loose).unwrap());
                let rooted =
                    gantry_core::snapshots::NewSnapshot { labels: labels(&[ROOT]), ..new(&key, None) };
                snapshotter.prepare(&n(), rooted).await.unwrap();
                snapshotter.remove(&n(), &crate::support::key(&key)).await.unwrap();
                let open = OpenWriter { reference: reference.clone(), total_bytes: 0, expected: None };
                drop(world.metadata.content().writer(&n(), open).await.unwrap());
                world.metadata.content().abort(&n(), &reference).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (collected, stopped) = (Arc::clone(&world), stop.clone());
    load.spawn(async move {
        while !stopped.is_cancelled() {
            collected.metadata.collect().await.unwrap();
        }
    });
    // Until there was a load to speak of, however slow the machine is.
    let mut checks = 0;
    while checks < 6 || rounds.load(Ordering::Relaxed) < 24 {
        let (findings, _) = check(&world, if checks % 2 == 0 { LOOK } else { REPAIR }).await;
        assert_eq!(findings, [], "check {checks}");
        checks += 1;
    }
    stop.cancel();
    load.join_all().await;
    world.metadata.collect().await.unwrap();
    assert_eq!(check(&world, REPAIR).await.0, []);
}
