//! How a process ended.

use std::fmt;
use std::time::SystemTime;

/// How a process ended: by itself with a code, or by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitStatus(Ending);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ending {
    Exited(u8),
    Killed { signal: i32, dumped: bool },
}

impl ExitStatus {
    /// A process that ended by itself with `code`.
    pub fn exited(code: u8) -> Self {
        ExitStatus(Ending::Exited(code))
    }

    /// A process that `signal` ended.
    pub fn killed(signal: i32) -> Self {
        ExitStatus(Ending::Killed { signal, dumped: false })
    }

    /// From the fields `si_code` and `si_status` that `waitid(WEXITED)` reports.
    pub(crate) fn from_siginfo(code: i32, status: i32) -> Self {
        match code {
            libc::CLD_KILLED => ExitStatus(Ending::Killed { signal: status, dumped: false }),
            libc::CLD_DUMPED => ExitStatus(Ending::Killed { signal: status, dumped: true }),
            // Exit codes are eight bits wide, so nothing is lost here.
            _ => ExitStatus(Ending::Exited((status & 0xff) as u8)),
        }
    }

    /// One number for both cases: the exit code, or 128 plus the signal.
    pub fn status(self) -> u32 {
        match self.0 {
            Ending::Exited(code) => u32::from(code),
            Ending::Killed { signal, .. } => 128 + signal.unsigned_abs(),
        }
    }

    /// The exit code, unless a signal ended the process.
    pub fn code(self) -> Option<u8> {
        match self.0 {
            Ending::Exited(code) => Some(code),
            Ending::Killed { .. } => None,
        }
    }

    /// The signal that ended the process, if one did.
    pub fn signal(self) -> Option<i32> {
        match self.0 {
            Ending::Exited(_) => None,
            Ending::Killed { signal, .. } => Some(signal),
        }
    }

    /// Whether the process left a core dump.
    pub fn dumped_core(self) -> bool {
        matches!(self.0, Ending::Killed { dumped: true, .. })
    }

    /// Whether the process ended by itself with code 0.
    pub fn success(self) -> bool {
        self.0 == Ending::Exited(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ending::Exited(code) => write!(f, "exit status {code}"),
            Ending::Killed { signal, dumped: false } => write!(f, "killed by signal {signal}"),
            Ending::Killed { signal, dumped: true } => write!(f, "killed by signal {signal} (core dumped)"),
        }
    }
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How.
    pub status: ExitStatus,
    /// When we learned of it.
    pub exited_at: SystemTime,
}

impl Exit {
    /// `status`, now.
    pub(crate) fn now(status: ExitStatus) -> Self {
        Exit { status, exited_at: SystemTime::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_reported_as_128_plus_its_number() {
        let killed = ExitStatus::from_siginfo(libc::CLD_KILLED, 9);
        assert_eq!((killed.status(), killed.code(), killed.signal()), (137, None, Some(9)));
        let exited = ExitStatus::from_siginfo(libc::CLD_EXITED, 7);
        assert_eq!((exited.status(), exited.code(), exited.signal()), (7, Some(7), None));
        assert!(!exited.success() && ExitStatus::exited(0).success());
        assert!(ExitStatus::from_siginfo(libc::CLD_DUMPED, 11).dumped_core());
    }
}
