//! Waiting for a fact instead of a time.

use std::thread;
use std::time::{Duration, Instant};

/// How much slower than a real machine this one is: `GANTRY_TEST_SLOW`, 1 when unset.
///
/// Machines emulated in software set it, so that every wait in the tests grows by one factor.
fn factor() -> u32 {
    std::env::var("GANTRY_TEST_SLOW").ok().and_then(|text| text.parse().ok()).unwrap_or(1).clamp(1, 100)
}

/// `time`, stretched for slow machines.
#[must_use]
pub fn scaled(time: Duration) -> Duration {
    time * factor()
}

/// How long a single step may take before a test calls it hung.
#[must_use]
pub fn limit() -> Duration {
    scaled(Duration::from_secs(60))
}

/// Asks `probe` again and again until it gives an answer, and panics after [`limit`] naming `what`.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {:?} in vain for: {what}", limit());
        thread::sleep(Duration::from_millis(20));
    }
}
