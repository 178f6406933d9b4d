//! When a request is made again, and how long that waits.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use rand::Rng as _;

/// How many times a request is made at most.
///
/// Source: containerd's `maxAttempts`.
pub(crate) const MAX_ATTEMPTS: u32 = 5;
/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait is longer, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Whether a status is worth another attempt.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Whether a server says only that it is busy: then another host is not better, and waiting helps.
pub(crate) fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// How long to wait before attempt number `attempt` (the first is 0), given what the server asked for.
pub(crate) fn wait(attempt: u32, asked: Option<Duration>) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    // Spread, so that clients that failed together do not come back together.
    let wait = longest.mul_f64(rand::rng().random_range(0.5..1.0));
    asked.map_or(wait, |asked| asked.max(wait).min(LONGEST_WAIT))
}

/// What a server asked for, in seconds. Dates are not read: clocks differ.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        assert!(wait(0, None) <= FIRST_WAIT);
        assert!(wait(3, None) >= FIRST_WAIT * 4);
        assert!(wait(4_000_000_000, None) <= LONGEST_WAIT);
        assert_eq!(wait(0, Some(Duration::from_secs(3))), Duration::from_secs(3));
        assert_eq!(wait(0, Some(Duration::from_secs(86_400))), LONGEST_WAIT);
    }
}
