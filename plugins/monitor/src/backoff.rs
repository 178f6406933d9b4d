//! How long a container that keeps ending waits for its next start.

use std::time::{Duration, Instant};

/// A task that ran for so long has come up; its next end is a new story.
const STABLE: Duration = Duration::from_secs(10);
/// The longest wait. Source: features G65, the exit monitor's.
const LONGEST: Duration = Duration::from_secs(300);

/// Of one container.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    /// How many starts in a row came to nothing.
    failures: u32,
    /// The last start, if its end was not seen yet.
    started: Option<Instant>,
    /// Not before then.
    due: Option<Instant>,
}

impl Backoff {
    /// It was started.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// Its start failed.
    pub(crate) fn failed(&mut self, now: Instant, interval: Duration) {
        self.started = None;
        self.delay(now, interval);
    }

    /// It is seen running.
    pub(crate) fn runs(&mut self, now: Instant) {
        if self.started.is_none_or(|started| now.duration_since(started) >= STABLE) {
            *self = Backoff::default();
        }
    }

    /// It is seen ended; whether it may be started now. The first end counts no more than with the original, which looks every
    /// `interval`; each further one that comes soon doubles the wait.
    pub(crate) fn may_start(&mut self, now: Instant, interval: Duration) -> bool {
        if let Some(started) = self.started.take() {
            match now.duration_since(started) < STABLE.max(interval * 2) {
                true => self.delay(now, interval),
                false => *self = Backoff::default(),
            }
        }
        self.due.is_none_or(|due| now >= due)
    }

    fn delay(&mut self, now: Instant, interval: Duration) {
        let waits = 2u32.saturating_pow(self.failures).saturating_sub(1);
        self.due = now.checked_add(interval.saturating_mul(waits).min(LONGEST));
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_start_is_at_once_and_the_wait_doubles_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let mut waited = 0;
            while !backoff.may_start(now, INTERVAL) {
                now += INTERVAL;
                waited += 1;
            }
            waits.push(waited);
            backoff.started(now);
            now += INTERVAL;
        }
        assert_eq!(waits, [0, 0, 1, 3, 7, 15, 30, 30, 30]);
    }

    #[test]
    fn one_that_came_up_begins_anew() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            backoff.failed(now, INTERVAL);
        }
        assert!(!backoff.may_start(now, INTERVAL));
        now += LONGEST;
        assert!(backoff.may_start(now, INTERVAL));
        backoff.started(now);
        backoff.runs(now + Duration::from_secs(1));
        backoff.runs(now + STABLE);
        assert!(backoff.may_start(now + STABLE, INTERVAL));
    }
}
