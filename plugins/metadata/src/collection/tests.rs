use gantry_store::{Params, Store, StoreOptions, params};

use super::mark::{Node, NodeKind};
use super::*;
use crate::schema::MIGRATIONS;

/// A database with its recorder, without files or services around it.
struct Tables {
    store: Store,
    recorder: Arc<Recorder>,
    _dir: tempfile::TempDir,
}

impl Tables {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::default());
        let told = Arc::clone(&recorder);
        let options = StoreOptions {
            on_change: Some(Arc::new(move |table: &str, row| told.row_changed(table, row))),
            ..StoreOptions::new(dir.path().join("store.db"), MIGRATIONS)
        };
        Tables { store: Store::open(options).unwrap(), recorder, _dir: dir }
    }

    async fn run<P: Params + Clone + Send + 'static>(&self, sql: &'static str, params: P) {
        self.store.write(move |db| db.execute(sql, params.clone()).map(drop)).await.unwrap();
    }

    async fn blob(&self, id: i64) {
        self.run("INSERT INTO blobs VALUES (?1, 'n', 'digest ' || ?1, 1, '0.0', '0.0')", [id]).await;
    }

    async fn snapshot(&self, id: i64, key: &'static str, parent: Option<i64>) {
        let sql = "INSERT INTO snapshots VALUES (?1, 's', 'n', ?2, ?3, 1, '0.0', '0.0', NULL, NULL, 'boot', 1, ?1 + 100)";
        self.run(sql, (id, key, parent)).await;
    }

    /// Begins a collection: what is there now and not reached is to be deleted.
    async fn mark(&self) -> (Marker, Vec<Node>) {
        let recorder = Arc::clone(&self.recorder);
        let start = move |_: &Writing<'_>| {
            recorder.start();
            Ok(())
        };
        self.store.write(start).await.unwrap();
        let read = |db: &Reading<'_>| {
            let mut marker = Marker::new(SystemTime::now());
            marker.mark_roots(db)?;
            let dead = sweep::candidates(db, &marker)?;
            Ok((marker, dead))
        };
        self.store.read(read).await.unwrap()
    }

    async fn sweep(&self, marker: Marker, dead: Vec<Node>) -> Swept {
        self.sweep_for(Duration::MAX, marker, dead).await
    }

    async fn sweep_for(&self, time: Duration, marker: Marker, dead: Vec<Node>) -> Swept {
        let (marker, recorder) = (Mutex::new(marker), Arc::clone(&self.recorder));
        let write = move |db: &Writing<'_>| {
            sweep::sweep(db, &mut marker.lock().unwrap(), &recorder, &dead, &["s".to_owned()], time)
        };
        self.store.write(write).await.unwrap()
    }

    async fn left(&self, kind: NodeKind) -> Vec<i64> {
        self.store.read(move |db| mark::ids(db, kind)).await.unwrap()
    }
}

#[tokio::test]
async fn a_reference_made_during_the_mark_keeps_what_it_reaches() {
    let tables = Tables::new();
    for id in 1..=3 {
        tables.blob(id).await;
    }
    tables.run("INSERT INTO labels VALUES (4, 1, 'containerd.io/gc.ref.content', 'digest 2')", []).await;
    let (marker, dead) = tables.mark().await;
    assert_eq!(dead.len(), 3);
    let image = "INSERT INTO images VALUES (1, 'n', 'i', 'm', 'digest 1', 1, '0.0', '0.0')";
    tables.run(image, []).await;
    let swept = tables.sweep(marker, dead).await;
    assert_eq!(swept.removed, [Removed::Blob { digest: "digest 3".into() }]);
    assert_eq!(tables.left(NodeKind::Blob).await, [1, 2]);
}

#[tokio::test]
async fn a_lease_that_takes_a_resource_during_the_mark_keeps_it() {
    let tables = Tables::new();
    tables.run("INSERT INTO leases VALUES (1, 'n', 'l', '0.0')", []).await;
    tables.snapshot(1, "parent", None).await;
    tables.snapshot(2, "child", Some(1)).await;
    tables.snapshot(3, "loose", None).await;
    let (marker, dead) = tables.mark().await;
    assert_eq!(dead.len(), 3);
    tables.run("INSERT INTO lease_resources VALUES (9, 1, 'snapshots/s', 'child')", []).await;
    tables.sweep(marker, dead).await;
    assert_eq!(tables.left(NodeKind::Snapshot).await, [1, 2]);
}

#[tokio::test]
async fn a_label_set_during_the_mark_on_what_lives_keeps_its_target() {
    let tables = Tables::new();
    tables.blob(1).await;
    tables.blob(2).await;
    tables.run("INSERT INTO labels VALUES (4, 1, 'containerd.io/gc.root', 'x')", []).await;
    let (marker, dead) = tables.mark().await;
    assert_eq!(dead, [Node { kind: NodeKind::Blob, id: 2 }]);
    // As an update does it: the labels, and the owner's row.
    tables.run("INSERT INTO labels VALUES (4, 1, 'containerd.io/gc.ref.content', 'digest 2')", []).await;
    tables.run("UPDATE blobs SET updated_at = '1.0' WHERE id = ?1", [1]).await;
    tables.sweep(marker, dead).await;
    assert_eq!(tables.left(NodeKind::Blob).await, [1, 2]);
}

#[tokio::test]
async fn a_snapshot_committed_during_the_mark_is_kept_with_its_parents() {
    let tables = Tables::new();
    tables.snapshot(1, "parent", None).await;
    tables.snapshot(2, "active", Some(1)).await;
    let (marker, dead) = tables.mark().await;
    tables.run("UPDATE snapshots SET key = 'name', kind = 2 WHERE id = ?1", [2]).await;
    tables.sweep(marker, dead).await;
    assert_eq!(tables.left(NodeKind::Snapshot).await, [1, 2]);
}

#[tokio::test]
async fn a_sweep_whose_time_is_over_says_how_far_it_got() {
    let tables = Tables::new();
    for id in 1..=3 {
        tables.blob(id).await;
    }
    let (marker, dead) = tables.mark().await;
    let swept = tables.sweep_for(Duration::ZERO, marker, dead).await;
    assert_eq!((swept.seen, swept.removed.len()), (1, 1));
    assert_eq!(tables.left(NodeKind::Blob).await.len(), 2);
}

#[tokio::test]
async fn what_was_not_touched_is_swept_children_first() {
    let tables = Tables::new();
    tables.snapshot(5, "parent", None).await;
    // Rebased: the child is older than its parent.
    tables.snapshot(2, "child", Some(5)).await;
    let (marker, dead) = tables.mark().await;
    let swept = tables.sweep(marker, dead).await;
    assert_eq!(swept.removed.len(), 1);
    assert_eq!(swept.later, [Node { kind: NodeKind::Snapshot, id: 5 }]);
}

#[tokio::test]
async fn records_of_a_snapshotter_without_driver_stay() {
    let tables = Tables::new();
    tables.snapshot(1, "k", None).await;
    tables.run("UPDATE snapshots SET snapshotter = 'unknown'", []).await;
    let (marker, dead) = tables.mark().await;
    assert!(tables.sweep(marker, dead).await.removed.is_empty());
    assert_eq!(tables.left(NodeKind::Snapshot).await, [1]);
}

#[tokio::test]
async fn too_many_changes_end_the_collection_and_not_the_memory() {
    let recorder = Recorder::default();
    recorder.start();
    for row in 0..300_000 {
        recorder.row_changed("blobs", row);
    }
    assert_eq!(recorder.since(0), None);
    recorder.stop();
    recorder.row_changed("blobs", 1);
    recorder.start();
    assert_eq!(recorder.since(0).unwrap(), []);
}

#[tokio::test]
async fn questions_about_few_labels_do_not_read_all_of_them() {
    let tables = Tables::new();
    for (sql, index) in [
        (mark::ROOT_LABELS, "labels_roots"),
        (mark::BACK_REFERENCES, "labels_back"),
        (mark::CONDITIONS, "labels_conditions"),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let needs_value = sql.contains("?1");
        let read = move |db: &Reading<'_>| {
            if needs_value {
                db.all(&explain, params!["x"], |row| row.get::<String>(3))
            } else {
                db.all(&explain, [], |row| row.get::<String>(3))
            }
        };
        let plan = tables.store.read(read).await.unwrap().join("; ");
        assert!(plan.contains(index), "{plan}");
    }
}
