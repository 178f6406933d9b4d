//! The labels and extensions of every kind of record.

use std::collections::BTreeMap;

use gantry_core::{Any, Error, Labels, Result, labels};
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
}

impl Owner {
    /// The kind that the tables call `number`.
    pub(crate) fn from_number(number: i64) -> Option<Owner> {
        use Owner::*;
        [Namespace, Container, Image, Blob, Snapshot, Lease, Sandbox]
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
    labels::validate_all(&given)?;
    labels::drop_empty(&mut given);
    Ok(given)
}

/// The same for records whose labels may have any length: leases and sandboxes.
pub(crate) fn checked_for_key(mut given: Labels) -> Result<Labels> {
    labels::drop_empty(&mut given);
    if given.contains_key("") {
        // Source: containerd's answer, the error of its database.
        return Err(Error::unknown("label key must not be empty: key required"));
    }
    Ok(given)
}

/// Does what the path `labels.<key>` asks for: takes that label from `given`, or removes it.
pub(crate) fn apply(labels: &mut Labels, key: &str, given: &Labels) {
    match given.get(key) {
        Some(value) if !value.is_empty() => labels.insert(key.to_owned(), value.clone()),
        _ => labels.remove(key),
    };
}

/// What the masks of content and snapshots can say: the paths `labels` and `labels.<key>`, or nothing for all labels.
pub(crate) fn update(stored: Labels, given: &Labels, paths: &[String], noun: &str) -> Result<Labels> {
    if paths.is_empty() {
        return checked(given.clone());
    }
    let mut labels = stored;
    for path in paths {
        match path.strip_prefix("labels.") {
            Some(key) => apply(&mut labels, key, given),
            None if path == "labels" => labels = given.clone(),
            None => return Err(refused_path(path, noun)),
        }
    }
    checked(labels)
}

/// An update named a path that this noun does not know.
pub(crate) fn refused_path(path: &str, noun: &str) -> Error {
    Error::invalid_argument(format!("cannot update {path:?} field on {noun}"))
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

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_mask_touches_only_what_it_names() {
        let stored = labels(&[("a", "1"), ("b", "2"), ("x.y", "3")]);
        let given = labels(&[("b", ""), ("x.y", "4"), ("z", "5")]);
        let paths = ["labels.b".to_owned(), "labels.x.y".to_owned(), "labels.q".to_owned()];
        let updated = update(stored.clone(), &given, &paths, "content").unwrap();
        assert_eq!(updated, labels(&[("a", "1"), ("x.y", "4")]));
        assert_eq!(
            update(stored.clone(), &given, &[], "content").unwrap(),
            labels(&[("x.y", "4"), ("z", "5")])
        );
        let refused = update(stored, &given, &["size".to_owned()], "content").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
}
