//! Signals: those that we are sent, to be passed on.

use std::task::Poll;

use gantry_core::{Error, ResultExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are passed on to a process in the foreground.
///
/// Source: signal(7), those that another process sends for a reason.
const PASSED_ON: &[SignalKind] = &[
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Signals on their way to us. From now on they no longer end this program.
pub(crate) struct Signals(Vec<(u32, Signal)>);

impl Signals {
    /// Takes the signals that are passed on.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn take() -> Result<Self, Error> {
        let take = |kind: &SignalKind| {
            let number = u32::try_from(kind.as_raw_value()).unwrap_or_default();
            signal(*kind).map(|stream| (number, stream)).with_context(|| format!("wait for signal {number}"))
        };
        PASSED_ON.iter().map(take).collect::<Result<_, _>>().map(Signals)
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<u32> {
        for (number, stream) in &mut self.0 {
            if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                return Poll::Ready(*number);
            }
        }
        Poll::Pending
    }

    /// The next signal. May be dropped: none is lost then.
    pub(crate) async fn next(&mut self) -> u32 {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// A signal that has come already.
    pub(crate) fn pending(&mut self) -> Option<u32> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self.poll(&mut cx) {
            Poll::Ready(number) => Some(number),
            Poll::Pending => None,
        }
    }
}

/// Whether the signal asks a program to end.
pub(crate) fn asks_to_end(number: u32) -> bool {
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()]
        .iter()
        .any(|kind| u32::try_from(kind.as_raw_value()) == Ok(number))
}
