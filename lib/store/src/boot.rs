//! How the last run ended: whether the machine was started anew since, and whether all was durable before.

use std::path::Path;

use gantry_core::{Result, ResultExt};
use rusqlite::{Connection, OptionalExtension, params};

use crate::fault::fault;

/// How the store was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastStop {
    /// The file is new.
    Never,
    /// In this same boot: whatever was written to any file is still there, even after a kill.
    SameBoot,
    /// In an earlier boot, marked clean: everything was made durable before.
    Clean,
    /// In an earlier boot, without the mark: files that were not synced may be damaged.
    Unclean,
}

/// This boot of the machine, and how the store was left before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's boot id.
    pub id: String,
    /// How the last run ended.
    pub last: LastStop,
}

/// The boot id of the running kernel.
///
/// Source: random(4), `/proc/sys/kernel/random/boot_id`.
pub(crate) fn current_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

/// Reads how the store was left, and marks it as in use by boot `id`.
///
/// The mark may well be written without waiting for the disk: it comes before every later write in the same log, so whatever
/// is durable, the mark is too.
pub(crate) fn begin(connection: &mut Connection, path: &Path, id: &str) -> Result<Boot> {
    let mut run = || -> rusqlite::Result<LastStop> {
        let transaction = connection.transaction()?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS store_boot (
                one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL, clean INTEGER NOT NULL) STRICT",
        )?;
        let last = last_stop(&transaction, id)?;
        transaction.execute("INSERT OR REPLACE INTO store_boot VALUES (1, ?1, 0)", params![id])?;
        transaction.commit()?;
        Ok(last)
    };
    let last = run().map_err(|error| fault(error, path))?;
    Ok(Boot { id: id.to_owned(), last })
}

fn last_stop(connection: &Connection, id: &str) -> rusqlite::Result<LastStop> {
    let before: Option<(String, bool)> = connection
        .query_row("SELECT boot_id, clean FROM store_boot", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match before {
        None => LastStop::Never,
        Some((last, _)) if last == id => LastStop::SameBoot,
        Some((_, true)) => LastStop::Clean,
        Some((_, false)) => LastStop::Unclean,
    })
}

/// Reads how the store was left in boot `id`, and leaves it so.
pub(crate) fn look(connection: &Connection, path: &Path, id: &str) -> Result<Boot> {
    let last = last_stop(connection, id).map_err(|error| fault(error, path))?;
    Ok(Boot { id: id.to_owned(), last })
}

/// Marks the store as left with everything durable.
pub(crate) fn mark_clean(connection: &Connection, path: &Path) -> Result<()> {
    connection.execute("UPDATE store_boot SET clean = 1", []).map_err(|error| fault(error, path))?;
    Ok(())
}
