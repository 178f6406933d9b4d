//! Waiting for whoever is to read a process's output.
//!
//! A client opens the reading ends of its fifos beside its call, and gives up an opening still under way once it
//! deletes the process. A short process whose output went into a fifo without reader would end before the client has
//! opened it, and all that it said would be lost. So a process begins only when its readers are there.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use gantry_core::Result;
use gantry_core::tasks::TaskIo;
use gantry_sys::fifo;
use tokio::time::Instant;

/// How long a process is held back for its readers. Ours: the original waits for 30 s, and then fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Until when the readers of a process are waited for, if the caller itself waits until `deadline`: there must be time
/// left to begin the process.
pub(crate) fn until(deadline: Option<Instant>) -> Instant {
    let now = Instant::now();
    let patience = deadline.map_or(PATIENCE, |deadline| deadline.saturating_duration_since(now) / 2);
    now + patience.min(PATIENCE)
}

/// Waits for a reader of each fifo that `io` names as output, until `until`. Nobody reading is no error: the process
/// runs without being heard, until its fifo is full.
///
/// What is given is to be held until the fifos were opened for good, so that a reader sees no end before.
pub(crate) async fn wait(io: &TaskIo, until: Instant) -> [Option<OwnedFd>; 2] {
    let stderr = if io.terminal { "" } else { io.stderr.as_str() };
    tokio::join!(wait_for_one(&io.stdout, until), wait_for_one(stderr, until)).into()
}

async fn wait_for_one(name: &str, until: Instant) -> Option<OwnedFd> {
    let path = Path::new(name.strip_prefix("fifo://").unwrap_or(name));
    if !std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return None;
    }
    // Dropping it leaves nothing open. What else is wrong with the fifo shows when it is opened for good.
    let opened: Option<Result<OwnedFd>> = tokio::time::timeout_at(until, fifo::open_writer(path)).await.ok();
    if opened.is_none() {
        tracing::warn!(?path, "nobody reads an output; its process begins all the same");
    }
    opened?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_sys::fifo::End;

    #[test]
    fn the_callers_deadline_leaves_time_to_begin() {
        let within = |deadline: Duration| until(Some(Instant::now() + deadline)) - Instant::now();
        assert!(within(Duration::from_secs(4)) <= Duration::from_secs(2));
        assert!(within(Duration::from_secs(1000)) <= PATIENCE);
        assert_eq!(within(Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test]
    async fn only_fifos_are_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, file) = (dir.path().join("fifo"), dir.path().join("file"));
        fifo::make(&fifo, 0o600).unwrap();
        std::fs::write(&file, "").unwrap();
        let io = |stdout: &Path, stderr: &str| TaskIo {
            stdout: stdout.display().to_string(),
            stderr: stderr.to_owned(),
            ..TaskIo::default()
        };
        let far = Instant::now() + Duration::from_secs(3600);
        assert!(matches!(wait(&io(&file, "/no/such"), far).await, [None, None]));
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(wait(&io(&fifo, ""), soon).await, [None, None]));
        assert!(Instant::now() >= soon);
        let _reader = fifo::open_now(&fifo, End::Read).unwrap();
        assert!(matches!(wait(&io(&fifo, &fifo.display().to_string()), far).await, [Some(_), Some(_)]));
    }
}
