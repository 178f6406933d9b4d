//! The rule by which a connection that delivers too little is given up.

use std::time::Duration;

/// A connection must deliver `min_bytes` in each `window` of waiting for it. Time in which nobody asks for bytes does
/// not count, so a slow reader is no stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallRule {
    /// How long one measurement is.
    pub window: Duration,
    /// What must have come by then, in bytes.
    pub min_bytes: u64,
}

impl Default for StallRule {
    /// 32 KiB in 30 seconds: slower than any link worth waiting for, and no trickle of single bytes passes it.
    fn default() -> Self {
        StallRule { window: Duration::from_secs(30), min_bytes: 32 << 10 }
    }
}

/// One connection's measurement.
#[derive(Debug)]
pub(crate) struct StallMeter {
    rule: StallRule,
    waited: Duration,
    bytes: u64,
}

impl StallMeter {
    pub(crate) fn new(rule: StallRule) -> Self {
        StallMeter { rule, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next wait may take before the connection has stalled for sure.
    pub(crate) fn patience(&self) -> Duration {
        self.rule.window.saturating_sub(self.waited)
    }

    /// Counts one wait and what it brought; `false` if the connection stalls.
    pub(crate) fn record(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= self.rule.min_bytes {
            *self = StallMeter::new(self.rule);
            return true;
        }
        self.waited < self.rule.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: StallRule = StallRule { window: Duration::from_secs(10), min_bytes: 100 };

    #[test]
    fn a_trickle_is_a_stall() {
        let mut meter = StallMeter::new(RULE);
        let second = Duration::from_secs(1);
        for _ in 0..9 {
            assert!(meter.record(second, 1));
        }
        assert_eq!(meter.patience(), second);
        assert!(!meter.record(second, 1));
    }

    #[test]
    fn enough_bytes_start_a_new_window() {
        let mut meter = StallMeter::new(RULE);
        for _ in 0..100 {
            assert!(meter.record(Duration::from_secs(9), 100));
        }
        assert_eq!(meter.patience(), RULE.window);
    }
}
