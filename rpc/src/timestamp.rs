//! Points in time. "Not yet" is Go's zero time on the wire, as containerd's clients expect it.

use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_api::Timestamp;
use gantry_core::time::{GO_ZERO_SECONDS, from_parts, to_parts};
use gantry_core::{Error, Result};

/// The seconds of a timestamp. Source: google/protobuf/timestamp.proto: from the year 1 to the year 9999.
const SECONDS: RangeInclusive<i64> = GO_ZERO_SECONDS..=253_402_300_799;

pub(crate) const GO_ZERO: Timestamp = Timestamp { seconds: GO_ZERO_SECONDS, nanos: 0 };

pub(crate) fn to_proto(time: SystemTime) -> Timestamp {
    let (seconds, nanos) = to_parts(time);
    Timestamp { seconds, nanos }
}

/// The time of something that may not have happened yet.
pub(crate) fn or_go_zero(time: Option<SystemTime>) -> Timestamp {
    time.map_or(GO_ZERO, to_proto)
}

/// A time that is absent, Go's zero or a point in time.
pub(crate) fn optional(time: Option<Timestamp>, field: &'static str) -> Result<Option<SystemTime>> {
    let Some(time) = time.filter(|time| *time != GO_ZERO) else { return Ok(None) };
    let valid = SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    match valid.then(|| from_parts(time.seconds, time.nanos)).flatten() {
        Some(point) => Ok(Some(point)),
        None => Err(Error::invalid_argument(format!("{field}: no point in time"))),
    }
}

/// A time that the receiver sets or ignores: nonsense in it is no error.
pub(crate) fn or_epoch(time: Option<Timestamp>) -> SystemTime {
    optional(time, "").ok().flatten().unwrap_or(UNIX_EPOCH)
}
