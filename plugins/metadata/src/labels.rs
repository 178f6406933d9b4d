//! The labels and extensions of every kind of record.

use std::collections::BTreeMap;

pub(crate) use gantry_core::labels::{apply, mask_refused, update};
use gantry_core::labels::{drop_empty, validate_all, validate_keys};
use gantry_core::{Any, Labels, Result};
use gantry_store::{Reading, Writing, params};

/// Whose labels: the number kept in the tables, and known to the triggers of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    Namespace = 1,
    Container = 2,
    Image = 3,
    Blob = 4,
    Snapshot = 5,
    Lease = 6,
    Sandbox = 7,
    Mount = 8,
}

impl Owner {
    /// The kind that the tables call `number`.
    pub(crate) fn from_number(number: i64) -> Option<Owner> {
        use Owner::*;
        [Namespace, Container, Image, Blob, Snapshot, Lease, Sandbox, Mount]
            .into_iter()
            .find(|owner| *owner as i64 == number)
    }
}

/// The labels of one record.
pub(crate) fn load(db: &Reading<'_>, kind: Owner, owner: i64) -> Result<Labels> {
    let mut labels = Labels::new();
    db.each(
        "SELECT key, value FROM labels WHERE kind = ?1 AND owner = ?2",
        params![kind as i64, owner],
        |row| {
            labels.insert(row.get(0)?, row.get(1)?);
            Ok(())
        },
    )?;
    Ok(labels)
}

/// Replaces the labels of one record; empty values are not stored. The caller also updates the record's own row.
pub(crate) fn store(db: &Writing<'_>, kind: Owner, owner: i64, labels: &Labels) -> Result<()> {
    db.execute("DELETE FROM labels WHERE kind = ?1 AND owner = ?2", params![kind as i64, owner])?;
    for (key, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        db.execute("INSERT INTO labels VALUES (?1, ?2, ?3, ?4)", params![kind as i64, owner, key, value])?;
    }
    Ok(())
}

/// Checks the labels of a record and drops those that are never stored.
pub(crate) fn checked(mut given: Labels) -> Result<Labels> {
    validate_all(&given)?;
    drop_empty(&mut given);
    Ok(given)
}

/// The same for records whose labels may have any length: leases and sandboxes.
pub(crate) fn checked_for_key(mut given: Labels) -> Result<Labels> {
    validate_keys(&given)?;
    drop_empty(&mut given);
    Ok(given)
}

/// The extensions of one record.
pub(crate) fn load_extensions(db: &Reading<'_>, kind: Owner, owner: i64) -> Result<BTreeMap<String, Any>> {
    let mut found = BTreeMap::new();
    let sql = "SELECT name, type, value FROM extensions WHERE kind = ?1 AND owner = ?2";
    db.each(sql, params![kind as i64, owner], |row| {
        found.insert(row.get(0)?, Any::new(row.get::<String>(1)?, row.get::<Vec<u8>>(2)?));
        Ok(())
    })?;
    Ok(found)
}

/// Replaces the extensions of one record.
pub(crate) fn store_extensions(
    db: &Writing<'_>,
    kind: Owner,
    owner: i64,
    extensions: &BTreeMap<String, Any>,
) -> Result<()> {
    db.execute("DELETE FROM extensions WHERE kind = ?1 AND owner = ?2", params![kind as i64, owner])?;
    for (name, any) in extensions {
        let value: &[u8] = &any.value;
        db.execute(
            "INSERT INTO extensions VALUES (?1, ?2, ?3, ?4, ?5)",
            params![kind as i64, owner, name, any.type_url, value],
        )?;
    }
    Ok(())
}

/// Does what the path `extensions.<name>` asks for.
pub(crate) fn apply_extension(
    extensions: &mut BTreeMap<String, Any>,
    name: &str,
    given: &BTreeMap<String, Any>,
) {
    match given.get(name) {
        Some(any) => extensions.insert(name.to_owned(), any.clone()),
        None => extensions.remove(name),
    };
}
