use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc as std_mpsc};
use std::task::Poll;

use gantry_core::ErrorKind;

use super::*;
use crate::boot::LastStop;
use crate::params;

const STEPS: &[Migration] = &[
    Migration {
        name: "numbers",
        sql: "CREATE TABLE numbers (id INTEGER PRIMARY KEY, value INTEGER NOT NULL UNIQUE)",
    },
    Migration { name: "blobs", sql: "CREATE TABLE blobs (id INTEGER PRIMARY KEY, data BLOB)" },
];

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(StoreOptions::new(dir.path().join("gantry/store.db"), STEPS)).unwrap()
}

fn put(db: &Writing<'_>, value: i64) -> Result<()> {
    db.execute("INSERT INTO numbers (value) VALUES (?1)", params![value]).map(drop)
}

async fn numbers(store: &Store) -> Vec<i64> {
    store.read(|db| db.all("SELECT value FROM numbers ORDER BY value", [], |row| row.get(0))).await.unwrap()
}

/// Asks for `write` and returns once it is in the queue.
async fn queued<T: Send + 'static>(
    store: &Store,
    write: impl Fn(&Writing<'_>) -> Result<T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<T>> + Send>> {
    let store = store.clone();
    let mut write: Pin<Box<dyn Future<Output = Result<T>> + Send>> =
        Box::pin(async move { store.write(write).await });
    let waits = std::future::poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await;
    assert!(waits, "the writer is held");
    write
}

/// Keeps the writer busy until the returned sender is used or dropped.
async fn hold(store: &Store) -> std_mpsc::Sender<()> {
    let (release, gate) = std_mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let (gate, entered) = (Mutex::new(gate), Mutex::new(Some(entered)));
    let store = store.clone();
    std::thread::spawn(move || {
        store.write_blocking(move |_| {
            if let Some(entered) = entered.lock().unwrap().take() {
                let _ = entered.send(());
            }
            let _ = gate.lock().unwrap().recv();
            Ok(())
        })
    });
    inside.await.unwrap();
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_or_panicking_write_leaves_its_group_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let release = hold(&store).await;
    let mut writes = Vec::new();
    for value in 0..6 {
        let write = move |db: &Writing<'_>| {
            put(db, value)?;
            match value {
                2 => Err(Error::failed_precondition("two")),
                4 => panic!("four"),
                _ => Ok(()),
            }
        };
        writes.push(queued(&store, write).await);
    }
    drop(release);
    let mut kinds = Vec::new();
    for write in writes {
        kinds.push(write.await.err().map(|error| error.kind()));
    }
    let expected = [None, None, Some(ErrorKind::FailedPrecondition), None, Some(ErrorKind::Internal), None];
    assert_eq!(kinds, expected);
    assert_eq!(numbers(&store).await, [0, 1, 3, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_only_the_write_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store
        .write(|db| {
            let pages: i64 = db.one("PRAGMA page_count", [], |row| row.get(0))?.unwrap();
            db.one(&format!("PRAGMA max_page_count = {}", pages + 4), [], |row| row.get::<i64>(0)).map(drop)
        })
        .await
        .unwrap();
    let release = hold(&store).await;
    let mut writes = Vec::new();
    for value in 0..3_i64 {
        let write = move |db: &Writing<'_>| {
            put(db, value)?;
            let size = if value == 1 { 1 << 20 } else { 10 };
            db.execute("INSERT INTO blobs (data) VALUES (zeroblob(?1))", params![size]).map(drop)
        };
        writes.push(queued(&store, write).await);
    }
    drop(release);
    let mut outcomes = Vec::new();
    for write in writes {
        outcomes.push(write.await);
    }
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.to_string().contains("store.db"), "{error}");
    assert_eq!(numbers(&store).await, [0, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_sqlite_rolled_back_runs_again_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let release = hold(&store).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let mut writes = Vec::new();
    for value in 0..3_i64 {
        let runs = Arc::clone(&runs);
        let write = move |db: &Writing<'_>| {
            put(db, value)?;
            // What SQLITE_FULL may do to the whole transaction, when the last of them runs for the first time.
            if runs.fetch_add(1, Ordering::SeqCst) == 2 {
                db.execute("ROLLBACK", [])?;
                return Err(Error::resource_exhausted("pretended"));
            }
            Ok(())
        };
        writes.push(queued(&store, write).await);
    }
    drop(release);
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(numbers(&store).await, [0, 1, 2]);
    assert_eq!(runs.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn closing_writes_the_wal_back_and_refuses_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.write(|db| put(db, 1)).await.unwrap();
    store.close(true).await.unwrap();
    store.close(true).await.unwrap();
    assert_eq!(store.write(|db| put(db, 2)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.read(|_| Ok(())).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!dir.path().join("gantry/store.db-wal").exists());
    assert_eq!(numbers(&open(&dir)).await, [1]);
}

#[tokio::test]
async fn a_store_is_opened_once_and_again_after_its_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let refused = Store::open(StoreOptions::new(store.path(), STEPS)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    store.close(false).await.unwrap();
    open(&dir);
}

#[tokio::test]
async fn the_boot_tells_how_the_store_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut seen = Vec::new();
    for (boot, clean) in [("a", false), ("a", false), ("b", true), ("c", true), ("c", false), ("d", false)] {
        let options = StoreOptions { boot_id: Some(boot.to_owned()), ..StoreOptions::new(&path, STEPS) };
        let store = Store::open(options).unwrap();
        seen.push(store.boot().last);
        store.close(clean).await.unwrap();
    }
    use LastStop::*;
    assert_eq!(seen, [Never, SameBoot, Unclean, Clean, SameBoot, Unclean]);
}

#[tokio::test]
async fn migrations_go_forward_and_never_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Store::open(StoreOptions::new(&path, &STEPS[..1])).unwrap();
    store.write(|db| put(db, 7)).await.unwrap();
    store.close(true).await.unwrap();
    let store = Store::open(StoreOptions::new(&path, STEPS)).unwrap();
    store.write(|db| db.execute("INSERT INTO blobs (data) VALUES ('x')", []).map(drop)).await.unwrap();
    assert_eq!(numbers(&store).await, [7]);
    store.close(true).await.unwrap();
    let refused = Store::open(StoreOptions::new(&path, &STEPS[..1])).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
}

#[test]
fn a_strangers_database_is_refused_and_a_damaged_one_is_data_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let refused = Store::open(StoreOptions::new(&path, STEPS)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    let path = dir.path().join("noise.db");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    let refused = Store::open(StoreOptions::new(&path, STEPS)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::DataLoss, "{refused}");
}

#[tokio::test]
async fn changed_rows_are_reported_by_table_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mut options = StoreOptions::new(dir.path().join("store.db"), STEPS);
    options.on_change =
        Some(Arc::new(move |table: &str, row| log.lock().unwrap().push((table.to_owned(), row))));
    let store = Store::open(options).unwrap();
    store.write(|db| put(db, 5)).await.unwrap();
    store.write(|db| db.execute("DELETE FROM numbers", []).map(drop)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [("numbers".to_owned(), 1)]);
}

#[tokio::test]
async fn a_read_is_one_moment_and_a_panic_in_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.write(|db| put(db, 1)).await.unwrap();
    let error = store.read(|_| -> Result<()> { panic!("no") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let (writer, runtime) = (store.clone(), tokio::runtime::Handle::current());
    let seen = store
        .read(move |db| {
            let count =
                |db: &Reading<'_>| db.one("SELECT count(*) FROM numbers", [], |row| row.get::<i64>(0));
            let before = count(db)?;
            runtime.block_on(writer.write(|db| put(db, 2)))?;
            Ok((before, count(db)?))
        })
        .await
        .unwrap();
    assert_eq!(seen, (Some(1), Some(1)));
    assert_eq!(store.quick_check().await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_a_few_rows_runs_on_the_spot_until_the_places_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { reads_on_the_spot: 1, ..StoreOptions::new(dir.path().join("store.db"), STEPS) };
    let store = Store::open(options).unwrap();
    let here = || std::thread::current().id();
    let asked = here();
    assert_eq!(store.read_few(move |_| Ok(here())).await.unwrap(), asked);
    // One that waits on a thread of the runtime takes the only place.
    let (entered, inside) = tokio::sync::oneshot::channel();
    let (release, gate) = std_mpsc::channel::<()>();
    let held = store.clone();
    let mut holder = tokio::task::JoinSet::new();
    holder.spawn(async move {
        let read = move |_: &Reading<'_>| {
            let _ = entered.send(());
            let _ = gate.recv();
            Ok(())
        };
        held.read_few(read).await
    });
    inside.await.unwrap();
    let asked = here();
    assert_ne!(store.read_few(move |_| Ok(here())).await.unwrap(), asked, "the pool takes this one");
    drop(release);
    holder.join_next().await.unwrap().unwrap().unwrap();
    let panicked = store.read_few(|_| -> Result<()> { panic!("on the spot") }).await.unwrap_err();
    assert_eq!(panicked.kind(), ErrorKind::Internal);
    let asked = here();
    assert_eq!(store.read_few(move |_| Ok(here())).await.unwrap(), asked, "the place is free again");
    store.close(true).await.unwrap();
    assert_eq!(store.read_few(|_| Ok(())).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// A small file system that others fill is full for what adds rows, and never for what takes them away.
#[test]
#[allow(clippy::disallowed_types)]
fn rows_can_be_deleted_on_a_full_disk() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    let mounted = mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(dir.path()).status().unwrap();
    assert!(mounted.success());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = open(&dir);
        let insert =
            |db: &Writing<'_>| db.execute("INSERT INTO blobs (data) VALUES (randomblob(900))", []).map(drop);
        for _ in 0..200 {
            store.write(insert).await.unwrap();
        }
        // Somebody else takes all that is left.
        let ballast = std::fs::File::create(dir.path().join("ballast")).unwrap();
        let mut size = 16 << 20;
        while size >= 4096 {
            let flags = rustix::fs::FallocateFlags::empty();
            let end = ballast.metadata().unwrap().len();
            if rustix::fs::fallocate(&ballast, flags, end, size).is_err() {
                size /= 2;
            }
        }
        let mut added = 0;
        let refused = loop {
            match store.write(insert).await {
                Ok(()) => added += 1,
                Err(error) => break error,
            }
            assert!(added < 100_000);
        };
        assert_eq!(refused.kind(), ErrorKind::ResourceExhausted);
        // Each in a transaction of its own, so that the WAL is filled more than once.
        for _ in 0..2500 {
            let one = "DELETE FROM blobs WHERE rowid IN (SELECT rowid FROM blobs ORDER BY random() LIMIT 1)";
            store.write(move |db| db.execute(one, []).map(drop)).await.unwrap();
            store.write(|db| db.execute("UPDATE blobs SET data = randomblob(900)", []).map(drop)).await.ok();
        }
        store.write(insert).await.unwrap();
        store.close(true).await.unwrap();
    });
}
