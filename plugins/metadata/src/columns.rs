//! How values that SQLite has no type for are kept in columns.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_core::time::{from_parts, to_parts};
use gantry_core::{Any, Error, Result};
use gantry_store::Row;

/// A time as text: seconds and nanoseconds, exact and readable.
pub(crate) fn time_to_text(time: SystemTime) -> String {
    let (seconds, nanos) = to_parts(time);
    format!("{seconds}.{nanos:09}")
}

/// The reverse of [`time_to_text`].
pub(crate) fn time_at(row: &Row<'_>, index: usize) -> Result<SystemTime> {
    let text: String = row.get(index)?;
    let parsed = text
        .split_once('.')
        .and_then(|(seconds, nanos)| from_parts(seconds.parse().ok()?, nanos.parse().ok()?));
    parsed.ok_or_else(|| Error::internal(format!("stored time {text:?}")))
}

/// Now, in whole seconds since the epoch.
pub(crate) fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// A payload in two columns, type and value.
pub(crate) fn any_at(row: &Row<'_>, index: usize) -> Result<Option<Any>> {
    let kind: Option<String> = row.get(index)?;
    let value: Option<Vec<u8>> = row.get(index + 1)?;
    Ok(kind.map(|kind| Any::new(kind, value.unwrap_or_default())))
}

/// The two columns of a payload.
pub(crate) fn any_parts(any: Option<&Any>) -> (Option<&str>, Option<&[u8]>) {
    (any.map(|any| any.type_url.as_str()), any.map(|any| any.value.as_ref()))
}

/// A length as SQLite keeps it.
pub(crate) fn length_to_column(length: u64) -> Result<i64> {
    i64::try_from(length).map_err(|_| Error::out_of_range(format!("length {length}")))
}

/// The reverse of [`length_to_column`].
pub(crate) fn length_at(row: &Row<'_>, index: usize) -> Result<u64> {
    let length: i64 = row.get(index)?;
    u64::try_from(length).map_err(|_| Error::internal(format!("stored length {length}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_nanoseconds() {
        let time = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(time_to_text(time), "-2.750000000");
    }
}
