//! The schema's versions: forward only, each step in one transaction with its number.

use std::path::Path;

use gantry_core::{Error, Result};
use rusqlite::Connection;

use crate::fault::fault;

/// One step of the schema. Its place in the caller's list, counted from 1, is the version it leads to; a step that was ever
/// released is never changed.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Said when it fails.
    pub name: &'static str,
    /// Statements, separated by semicolons.
    pub sql: &'static str,
}

/// Marks the file as gantry's for `file(1)` and against mix-ups: "gntr".
const APPLICATION_ID: i32 = 0x676e_7472;

/// Fails unless the schema has the newest version.
pub(crate) fn require_newest(connection: &Connection, path: &Path, steps: &[Migration]) -> Result<()> {
    let wrong = |error| fault(error, path);
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(wrong)?;
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(wrong)?;
    if id != APPLICATION_ID {
        return Err(Error::failed_precondition(format!("{} is not a gantry database", path.display())));
    }
    if usize::try_from(version) != Ok(steps.len()) {
        return Err(Error::failed_precondition(format!(
            "database {} has schema version {version}, and this program wants {}: start its daemon once, or use a newer program",
            path.display(),
            steps.len()
        )));
    }
    Ok(())
}

/// Brings the schema to the newest version.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, steps: &[Migration]) -> Result<()> {
    let wrong = |error| fault(error, path);
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(wrong)?;
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(wrong)?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(wrong)?;
    if id != APPLICATION_ID && (id != 0 || tables > 0) {
        return Err(Error::failed_precondition(format!("{} is not a gantry database", path.display())));
    }
    if id == 0 {
        connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(wrong)?;
    }
    if version > steps.len() {
        return Err(Error::failed_precondition(format!(
            "database {} has schema version {version}, and this program knows up to {}: use a newer one",
            path.display(),
            steps.len()
        )));
    }
    for (index, step) in steps.iter().enumerate().skip(version) {
        let mut run = || {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step.sql)?;
            transaction.pragma_update(None, "user_version", index as i64 + 1)?;
            transaction.commit()
        };
        run().map_err(|error| wrong(error).context(format!("schema step {} ({})", index + 1, step.name)))?;
    }
    Ok(())
}
