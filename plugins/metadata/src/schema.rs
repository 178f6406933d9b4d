//! The tables, and the steps that led to them.

use gantry_store::Migration;

/// Every step of the schema, oldest first. A step that was released is never changed.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { name: "first tables", sql: FIRST },
    Migration { name: "directories of snapshots", sql: SNAPSHOT_DIRECTORIES },
    Migration { name: "active mounts", sql: MOUNTS },
];

/// A snapshot's directory has a number of its own: those that another program made are numbered by each snapshotter, and ids
/// are one sequence for all of them.
const SNAPSHOT_DIRECTORIES: &str = "
ALTER TABLE snapshots ADD COLUMN directory INTEGER NOT NULL DEFAULT 0;
UPDATE snapshots SET directory = id;
CREATE UNIQUE INDEX snapshots_directory ON snapshots (snapshotter, directory);
";

/// Times are text, `seconds.nanoseconds` since the epoch: exact for every time a client may send. Keys compare by bytes.
///
/// Ids of what is collected are never used twice, so that a collection cannot mistake a new row for one it has seen. Labels have
/// no row ids of their own; whoever changes labels also updates the owner's row, and that is what a running collection notices.
const FIRST: &str = "
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE labels (
    kind INTEGER NOT NULL, owner INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (kind, owner, key)
) STRICT, WITHOUT ROWID;
-- What a collection asks: which records are roots by label or expire, and who points back at an object.
CREATE INDEX labels_roots ON labels (kind, owner, key, value)
    WHERE (key = 'containerd.io/gc.expire' OR (key >= 'containerd.io/gc.root' AND key < 'containerd.io/gc.roou'));
CREATE INDEX labels_back ON labels (value, key, kind, owner)
    WHERE (key >= 'containerd.io/gc.bref.' AND key < 'containerd.io/gc.bref/');
CREATE INDEX labels_conditions ON labels (key, value, kind, owner)
    WHERE (key >= 'containerd.io/gc.cond.' AND key < 'containerd.io/gc.cond/');

CREATE TABLE extensions (
    kind INTEGER NOT NULL, owner INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (kind, owner, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    image TEXT NOT NULL, runtime TEXT NOT NULL, options_type TEXT, options BLOB, spec_type TEXT, spec BLOB,
    snapshotter TEXT NOT NULL, snapshot_key TEXT NOT NULL, sandbox TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;

CREATE TABLE sandboxes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    runtime TEXT NOT NULL, options_type TEXT, options BLOB, spec_type TEXT, spec BLOB, sandboxer TEXT NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;

CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;
CREATE TABLE annotations (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (image, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;
CREATE TABLE lease_resources (
    id INTEGER PRIMARY KEY,
    lease INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE, kind TEXT NOT NULL, name TEXT NOT NULL,
    UNIQUE (lease, kind, name)
) STRICT;

CREATE TABLE blobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (namespace, digest)
) STRICT;
CREATE INDEX blobs_digest ON blobs (digest);

-- expected: a blob that another namespace has already and that this ingest may become without any data.
-- expires: seconds since the epoch; null while a lease is to keep it.
CREATE TABLE ingests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, ref TEXT NOT NULL,
    backend_ref TEXT NOT NULL, expected TEXT, expires INTEGER,
    UNIQUE (namespace, ref)
) STRICT;
CREATE INDEX ingests_backend ON ingests (backend_ref);
CREATE INDEX ingests_expected ON ingests (expected) WHERE expected IS NOT NULL;

-- id is the directory's name. unsynced: the directory's files may still be in memory only, in the boot named beside it.
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    snapshotter TEXT NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL,
    parent INTEGER REFERENCES snapshots (id), kind INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    used_bytes INTEGER, used_inodes INTEGER,
    boot_id TEXT NOT NULL, unsynced INTEGER NOT NULL,
    UNIQUE (snapshotter, namespace, key)
) STRICT;
CREATE INDEX snapshots_parent ON snapshots (parent) WHERE parent IS NOT NULL;
CREATE INDEX snapshots_unsynced ON snapshots (kind, boot_id, id) WHERE unsynced = 1;
CREATE INDEX snapshots_namespace ON snapshots (namespace, snapshotter);

-- A record's labels and extensions go with it. The numbers are those of `Owner` in labels.rs.
CREATE TRIGGER namespaces_gone AFTER DELETE ON namespaces BEGIN
    DELETE FROM labels WHERE kind = 1 AND owner = OLD.id; END;
CREATE TRIGGER containers_gone AFTER DELETE ON containers BEGIN
    DELETE FROM labels WHERE kind = 2 AND owner = OLD.id;
    DELETE FROM extensions WHERE kind = 2 AND owner = OLD.id; END;
CREATE TRIGGER images_gone AFTER DELETE ON images BEGIN
    DELETE FROM labels WHERE kind = 3 AND owner = OLD.id; END;
CREATE TRIGGER blobs_gone AFTER DELETE ON blobs BEGIN
    DELETE FROM labels WHERE kind = 4 AND owner = OLD.id; END;
CREATE TRIGGER snapshots_gone AFTER DELETE ON snapshots BEGIN
    DELETE FROM labels WHERE kind = 5 AND owner = OLD.id; END;
CREATE TRIGGER leases_gone AFTER DELETE ON leases BEGIN
    DELETE FROM labels WHERE kind = 6 AND owner = OLD.id; END;
CREATE TRIGGER sandboxes_gone AFTER DELETE ON sandboxes BEGIN
    DELETE FROM labels WHERE kind = 7 AND owner = OLD.id;
    DELETE FROM extensions WHERE kind = 7 AND owner = OLD.id; END;
";

/// Activations of mount lists. `lease` is a name, which need not exist. Options and data are texts that each end with a zero byte.
const MOUNTS: &str = "
CREATE TABLE mounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    lease TEXT, boot_id TEXT NOT NULL, finished INTEGER NOT NULL, pinned INTEGER NOT NULL,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;
-- mount_point is null for what is left to the caller.
CREATE TABLE mount_entries (
    mount INTEGER NOT NULL REFERENCES mounts (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    type TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, options BLOB NOT NULL,
    mount_point TEXT, mounted_at TEXT, data BLOB,
    PRIMARY KEY (mount, position)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER mounts_gone AFTER DELETE ON mounts BEGIN
    DELETE FROM labels WHERE kind = 8 AND owner = OLD.id; END;
-- Who refers to streams and mounts.
CREATE INDEX labels_others ON labels (value, key, kind, owner)
    WHERE ((key >= 'containerd.io/gc.ref.mount' AND key < 'containerd.io/gc.ref.mounu')
    OR (key >= 'containerd.io/gc.ref.stream' AND key < 'containerd.io/gc.ref.strean'));
";

#[cfg(test)]
mod tests {
    use gantry_store::{Reading, Store, StoreOptions, Writing, params};

    use super::MIGRATIONS;

    #[tokio::test]
    async fn snapshots_of_the_first_schema_keep_their_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = Store::open(StoreOptions::new(&path, &MIGRATIONS[..1])).unwrap();
        let sql =
            "INSERT INTO snapshots VALUES (?1, ?2, 'n', 'k', NULL, 1, '0.0', '0.0', NULL, NULL, 'b', 1)";
        for (id, snapshotter) in [(3, "overlayfs"), (7, "native")] {
            store.write(move |db| db.execute(sql, params![id, snapshotter]).map(drop)).await.unwrap();
        }
        store.close(true).await.unwrap();
        let store = Store::open(StoreOptions::new(&path, MIGRATIONS)).unwrap();
        let read = "SELECT id, directory FROM snapshots ORDER BY id";
        let found =
            store.read(move |db| db.all(read, [], |row| Ok((row.get(0)?, row.get(1)?)))).await.unwrap();
        assert_eq!(found, [(3_i64, 3_i64), (7, 7)]);
        // Two snapshotters may both have a directory 3; one may not have it twice.
        let new =
            "INSERT INTO snapshots VALUES (?1, ?2, 'n', 'l', NULL, 1, '0.0', '0.0', NULL, NULL, 'b', 1, 3)";
        store.write(move |db| db.execute(new, params![8, "native"]).map(drop)).await.unwrap();
        store.write(move |db| db.execute(new, params![9, "overlayfs"]).map(drop)).await.unwrap_err();
        store.close(true).await.unwrap();
    }

    /// Opens the file with the first `version` steps only.
    fn open(path: &std::path::Path, version: usize) -> Store {
        Store::open(StoreOptions::new(path, &MIGRATIONS[..version])).unwrap()
    }

    #[tokio::test]
    async fn mounts_are_added_to_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let before = open(&path, 2);
        let write = |db: &Writing<'_>| {
            db.insert("INSERT INTO namespaces (name) VALUES ('n')", [])?;
            db.execute("INSERT INTO labels VALUES (1, 1, 'containerd.io/gc.ref.mount.x', 'm')", []).map(drop)
        };
        before.write(write).await.unwrap();
        before.close(true).await.unwrap();
        let after = open(&path, 3);
        let write = |db: &Writing<'_>| {
            let sql = "INSERT INTO mounts VALUES (NULL, 'n', 'm', NULL, 'b', 0, 0, '0.0', '0.0')";
            let id = db.insert(sql, [])?;
            db.execute("INSERT INTO labels VALUES (8, ?1, 'k', 'v')", [id])?;
            db.execute("INSERT INTO mount_entries VALUES (?1, 0, 't', 's', '', x'', NULL, NULL, NULL)", [id])
        };
        after.write(write).await.unwrap();
        let count = |sql: &'static str| {
            let read = move |db: &Reading<'_>| db.one(sql, [], |row| row.get::<i64>(0));
            let read = after.read(read);
            async { read.await.unwrap().unwrap() }
        };
        assert_eq!(
            count(
                "SELECT count(*) FROM labels INDEXED BY labels_others WHERE \
             ((key >= 'containerd.io/gc.ref.mount' AND key < 'containerd.io/gc.ref.mounu') \
             OR (key >= 'containerd.io/gc.ref.stream' AND key < 'containerd.io/gc.ref.strean'))"
            )
            .await,
            1
        );
        after.write(|db| db.execute("DELETE FROM mounts", [])).await.unwrap();
        assert_eq!(count("SELECT count(*) FROM labels WHERE kind = 8").await, 0);
        assert_eq!(count("SELECT count(*) FROM mount_entries").await, 0);
        assert_eq!(count("SELECT count(*) FROM namespaces").await, 1);
        after.close(true).await.unwrap();
    }
}
