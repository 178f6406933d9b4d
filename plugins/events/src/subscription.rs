//! One subscriber's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gantry_core::events::{Envelope, EventPayload};
use gantry_core::filters::Filters;
use gantry_core::{Error, ItemStream};
use tokio::sync::mpsc;

/// How many events may wait for a subscriber. Source: semantics.md, "Where gantry differs on purpose".
pub(crate) const MAX_WAITING: usize = 10_000;
/// How many bytes of events may wait for a subscriber. Source: as above.
pub(crate) const MAX_WAITING_BYTES: usize = 16 << 20;

/// What is counted and told across the queue.
#[derive(Default)]
struct Level {
    bytes: AtomicUsize,
    fell_behind: AtomicBool,
}

/// The exchange's end of a queue.
pub(crate) struct Subscription {
    filters: Filters,
    queue: mpsc::Sender<Arc<Envelope>>,
    level: Arc<Level>,
}

/// What became of an offer.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Offered {
    /// Queued, or not wanted.
    Done,
    /// Nobody listens any more, or the subscriber fell behind: forget it.
    Ended,
}

impl Subscription {
    /// A queue, and the stream that a subscriber reads.
    pub(crate) fn new(filters: Filters) -> (Self, ItemStream<Arc<Envelope>>) {
        let (queue, waiting) = mpsc::channel::<Arc<Envelope>>(MAX_WAITING);
        let level = Arc::new(Level::default());
        let reading = (waiting, Arc::clone(&level), false);
        let stream = futures_util::stream::unfold(reading, |(mut waiting, level, ended)| async move {
            if ended {
                return None;
            }
            match waiting.recv().await {
                Some(envelope) => {
                    level.bytes.fetch_sub(weight(&envelope), Ordering::Relaxed);
                    Some((Ok(envelope), (waiting, level, false)))
                }
                None if level.fell_behind.load(Ordering::Acquire) => Some((
                    Err(Error::resource_exhausted(format!(
                        "event subscriber fell behind by {MAX_WAITING} events or {MAX_WAITING_BYTES} bytes; subscribe anew"
                    ))),
                    (waiting, level, true),
                )),
                None => None,
            }
        });
        (Subscription { filters, queue, level }, Box::pin(stream))
    }

    /// Queues `envelope` if the filters match. Never waits.
    pub(crate) fn offer(&self, envelope: &Arc<Envelope>) -> Offered {
        if self.queue.is_closed() {
            return Offered::Ended;
        }
        if !self.filters.matches(&**envelope) {
            return Offered::Done;
        }
        let weight = weight(envelope);
        let before = self.level.bytes.fetch_add(weight, Ordering::Relaxed);
        if before + weight <= MAX_WAITING_BYTES || before == 0 {
            match self.queue.try_send(Arc::clone(envelope)) {
                Ok(()) => return Offered::Done,
                Err(mpsc::error::TrySendError::Closed(_)) => return Offered::Ended,
                Err(mpsc::error::TrySendError::Full(_)) => {}
            }
        }
        self.level.fell_behind.store(true, Ordering::Release);
        Offered::Ended
    }
}

/// About how many bytes an event takes while it waits.
fn weight(envelope: &Envelope) -> usize {
    let payload = match &envelope.payload {
        EventPayload::Typed(_) => 512,
        EventPayload::Foreign { raw, .. } => raw.value.len() + raw.type_url.len(),
    };
    128 + envelope.topic.len() + envelope.namespace.len() + payload
}
