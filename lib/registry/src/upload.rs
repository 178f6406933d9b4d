//! The body of an upload: part of a stored blob, watched while it is taken.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gantry_core::content::ContentReader;

use crate::repository::Timeouts;

/// How much of a content store's blob is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// How far an upload is.
pub(crate) struct Progress {
    /// When a piece was last taken, and whether it was the last one.
    last: Mutex<(Instant, bool)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Progress { last: Mutex::new((Instant::now(), false)) }
    }

    fn last(&self) -> MutexGuard<'_, (Instant, bool)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the host has taken nothing for too long, or does not say what it thinks of the whole.
    pub(crate) async fn stalls(&self, timeouts: &Timeouts) {
        loop {
            let (at, complete) = *self.last();
            // A registry may copy a large blob once more before it answers.
            let patience = if complete { timeouts.answer * 10 } else { timeouts.stall.window * 2 };
            let left = patience.saturating_sub(at.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Part of a stored blob as a body. The content store is asked for the next piece only when the last one was taken.
pub(crate) fn body(
    reader: Arc<dyn ContentReader>,
    range: Range<u64>,
    progress: Arc<Progress>,
) -> reqwest::Body {
    let state = (reader, range.start, progress);
    let stream = futures_util::stream::try_unfold(state, move |(reader, at, progress)| {
        let end = range.end;
        async move {
            *progress.last() = (Instant::now(), at >= end);
            if at >= end {
                return Ok(None);
            }
            let length = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece =
                reader.read_at(at, length).await.map_err(|error| std::io::Error::other(error.to_string()))?;
            if piece.is_empty() {
                return Err(std::io::Error::other("the stored blob is shorter than it should be"));
            }
            let next = at + piece.len() as u64;
            Ok(Some((piece, (reader, next, progress))))
        }
    });
    reqwest::Body::wrap_stream(stream)
}
