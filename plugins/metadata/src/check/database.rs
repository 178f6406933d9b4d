//! The database file and its rows.

use std::collections::BTreeSet;

use gantry_core::maintenance::check::{Outcome, Problem};
use gantry_core::{Digest, ErrorKind, Namespace, Result};
use gantry_store::{Reading, Writing, params};

use super::{Checker, Draft, Mended};
use crate::namespaces;

/// Which rows belong to a record of which table. The numbers are those of `Owner` in labels.rs.
const OWNED: &[(&str, &str, &str)] = &[
    ("labels of namespaces", "labels", "kind = 1 AND NOT EXISTS (SELECT 1 FROM namespaces WHERE id = owner)"),
    ("labels of containers", "labels", "kind = 2 AND NOT EXISTS (SELECT 1 FROM containers WHERE id = owner)"),
    ("labels of images", "labels", "kind = 3 AND NOT EXISTS (SELECT 1 FROM images WHERE id = owner)"),
    ("labels of content", "labels", "kind = 4 AND NOT EXISTS (SELECT 1 FROM blobs WHERE id = owner)"),
    ("labels of snapshots", "labels", "kind = 5 AND NOT EXISTS (SELECT 1 FROM snapshots WHERE id = owner)"),
    ("labels of leases", "labels", "kind = 6 AND NOT EXISTS (SELECT 1 FROM leases WHERE id = owner)"),
    ("labels of mounts", "labels", "kind = 8 AND NOT EXISTS (SELECT 1 FROM mounts WHERE id = owner)"),
    ("labels of sandboxes", "labels", "kind = 7 AND NOT EXISTS (SELECT 1 FROM sandboxes WHERE id = owner)"),
    (
        "extensions of containers",
        "extensions",
        "kind = 2 AND NOT EXISTS (SELECT 1 FROM containers WHERE id = owner)",
    ),
    (
        "extensions of sandboxes",
        "extensions",
        "kind = 7 AND NOT EXISTS (SELECT 1 FROM sandboxes WHERE id = owner)",
    ),
    ("annotations of images", "annotations", "NOT EXISTS (SELECT 1 FROM images WHERE id = image)"),
    ("resources of leases", "lease_resources", "NOT EXISTS (SELECT 1 FROM leases WHERE id = lease)"),
];

/// Tables whose records keep their namespace from being deleted.
const KEEP_NAMESPACES: [&str; 4] = ["images", "blobs", "containers", "snapshots"];

/// The index of which a line of SQLite's check speaks.
///
/// Source: SQLite, `PRAGMA integrity_check`: "row 7 missing from index x", "wrong # of entries in index x", "non-unique entry in
/// index x".
fn index_of(line: &str) -> Option<&str> {
    let about = [
        "missing from index ",
        "wrong # of entries in index ",
        "values differ from index ",
        "row not in order in index ",
    ];
    about.iter().find_map(|text| Some(line.split_once(text)?.1.trim()))
}

impl Checker {
    /// The file's structure.
    pub(super) async fn database(&mut self) -> Result<()> {
        self.progress("the database", 0, 0).await?;
        let path = self.inner.store.path().display().to_string();
        let lines = match self.integrity().await {
            Ok(lines) => lines,
            Err(error) if error.kind() == ErrorKind::DataLoss => vec![error.to_string()],
            Err(error) => return Err(error),
        };
        if lines.is_empty() {
            return Ok(());
        }
        let indexes: Option<BTreeSet<String>> =
            lines.iter().map(|line| index_of(line).map(str::to_owned)).collect();
        let shown: Vec<&str> = lines.iter().take(3).map(String::as_str).collect();
        let detail = match lines.len() {
            0..=3 => shown.join("; "),
            more => format!("{}; and {} more lines", shown.join("; "), more - 3),
        };
        let Some(indexes) = indexes else {
            let draft = Draft::new(Problem::DatabaseDamaged).path(&path).detail(detail);
            let advice = "stop the daemon, copy the file, and rebuild it with `sqlite3 FILE .recover`, or restore a copy";
            return self.found(draft, Outcome::Left, advice).await;
        };
        let draft = Draft::new(Problem::IndexDamaged).path(&path).detail(detail);
        let inner = std::sync::Arc::clone(&self.inner);
        let names: Vec<String> = indexes.into_iter().collect();
        let repair = async move {
            let rebuilt = names.join(", ");
            let write = move |db: &Writing<'_>| {
                for name in &names {
                    db.execute(&format!("REINDEX \"{}\"", name.replace('"', "\"\"")), [])?;
                }
                Ok(())
            };
            inner.store.write(write).await?;
            Ok(Mended::Done(format!("rebuilt {rebuilt} from the table")))
        };
        self.settle(draft, "rebuilds the index from its table", repair).await
    }

    /// What SQLite finds wrong.
    async fn integrity(&self) -> Result<Vec<String>> {
        let sql = if self.options.deep { "PRAGMA integrity_check(100)" } else { "PRAGMA quick_check(100)" };
        let lines = self.inner.store.read(move |db| db.all(sql, [], |row| row.get::<String>(0))).await?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// Rows that belong to nothing, and records that cannot be read.
    pub(super) async fn rows(&mut self) -> Result<()> {
        self.progress("records", 0, 0).await?;
        for &(what, table, condition) in OWNED {
            let count = move |db: &Reading<'_>| {
                let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
                Ok(db.one(&sql, [], |row| row.get::<i64>(0))?.unwrap_or(0))
            };
            let count = self.inner.store.read(count).await?;
            if count == 0 {
                continue;
            }
            let draft = Draft::new(Problem::RowWithoutOwner).detail(format!("{count} {what}"));
            let inner = std::sync::Arc::clone(&self.inner);
            let repair = async move {
                let write =
                    move |db: &Writing<'_>| db.execute(&format!("DELETE FROM {table} WHERE {condition}"), []);
                match inner.store.write(write).await? {
                    0 => Ok(Mended::Unneeded),
                    gone => Ok(Mended::Done(format!("removed {gone} rows"))),
                }
            };
            self.settle(draft, "removes them", repair).await?;
        }
        self.namespaces().await?;
        self.count_others().await
    }

    async fn namespaces(&mut self) -> Result<()> {
        let read = |db: &Reading<'_>| {
            let mut missing = BTreeSet::new();
            for table in KEEP_NAMESPACES {
                let sql = format!(
                    "SELECT DISTINCT namespace FROM {table} WHERE namespace NOT IN (SELECT name FROM namespaces)"
                );
                missing.extend(db.all(&sql, [], |row| row.get::<String>(0))?);
            }
            Ok(missing)
        };
        for name in self.inner.store.read(read).await? {
            let draft = Draft::new(Problem::NamespaceMissing).detail(name.clone());
            let inner = std::sync::Arc::clone(&self.inner);
            let repair = async move {
                let namespace = match Namespace::parse(name) {
                    Ok(namespace) => namespace,
                    Err(error) => {
                        return Ok(Mended::Refused(format!("no namespace can be named so: {error}")));
                    }
                };
                inner.change(move |db: &Writing<'_>| namespaces::ensure(db, &namespace)).await?;
                Ok(Mended::Done("made the namespace".to_owned()))
            };
            self.settle(draft, "makes the namespace", repair).await?;
        }
        Ok(())
    }

    async fn count_others(&mut self) -> Result<()> {
        let read = |db: &Reading<'_>| {
            let mut all = 0;
            for table in ["containers", "images", "leases", "sandboxes"] {
                all += db
                    .one(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<i64>(0))?
                    .unwrap_or(0);
            }
            Ok(all)
        };
        self.summary.others = u64::try_from(self.inner.store.read(read).await?).unwrap_or(0);
        Ok(())
    }

    /// Tells of a blob's record that names no digest: a list that meets it fails as a whole.
    pub(super) async fn unreadable_blob(&mut self, digest: String) -> Result<()> {
        let why = Digest::parse(digest.as_str()).err().map(|error| error.to_string()).unwrap_or_default();
        let draft = Draft::new(Problem::RecordUnreadable).detail(format!("a record of content: {why}"));
        let inner = std::sync::Arc::clone(&self.inner);
        let repair = async move {
            let write =
                move |db: &Writing<'_>| db.execute("DELETE FROM blobs WHERE digest = ?1", params![digest]);
            match inner.delete(write).await? {
                0 => Ok(Mended::Unneeded),
                _ => Ok(Mended::Done("removed the record, which can have no file".to_owned())),
            }
        };
        self.settle(draft, "removes the record, which can have no file", repair).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_an_index_are_told_from_worse() {
        assert_eq!(index_of("row 3 missing from index blobs_digest"), Some("blobs_digest"));
        assert_eq!(index_of("wrong # of entries in index labels_roots"), Some("labels_roots"));
        assert_eq!(index_of("Tree 5 page 7: btreeInitPage() returns error code 11"), None);
        assert_eq!(index_of("NULL value in labels.key"), None);
    }
}
