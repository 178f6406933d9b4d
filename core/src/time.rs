//! Points in time as the protocol writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds and nanoseconds since the epoch; seconds may be negative, nanoseconds never are.
pub fn to_parts(time: SystemTime) -> (i64, i32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos() as i32),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, (1_000_000_000 - nanos) as i32),
            }
        }
    }
}

/// The reverse of [`to_parts`]; `None` if the point cannot be held.
pub fn from_parts(seconds: i64, nanos: i32) -> Option<SystemTime> {
    let nanos = Duration::from_nanos(u64::try_from(nanos).ok()?);
    let base = if seconds >= 0 {
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds as u64))?
    } else {
        UNIX_EPOCH.checked_sub(Duration::from_secs(seconds.unsigned_abs()))?
    };
    base.checked_add(nanos)
}

/// Go's zero time in seconds since the epoch: how containerd writes "not yet", for example in
/// `exited_at` of a running process. Source: observed answers.
pub const GO_ZERO_SECONDS: i64 = -62_135_596_800;
