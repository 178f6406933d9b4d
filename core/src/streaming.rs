//! Streams of messages that a client opens by a name and some later call of its uses, such as the export of an image.
//!
//! The client opens a stream (`Streaming.Stream`), is told that it is there, and names it in another call. Whoever does that
//! call's work takes the stream by its name and talks over it. A stream opened under a lease goes with the lease.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Any, Context, Result};

/// Both directions of one stream.
#[async_trait]
pub trait MessageStream: Send + Sync {
    /// Sends one message; waits until there is room for it.
    ///
    /// # Errors
    /// `Unavailable` once the stream has ended.
    async fn send(&self, message: Any) -> Result<()>;

    /// The next message of the other side, or `None` once it has closed its half.
    ///
    /// # Errors
    /// `Canceled` if the other side left without closing; that of the connection.
    async fn receive(&self) -> Result<Option<Any>>;

    /// Ends the stream for both sides. May be repeated.
    fn close(&self);
}

/// Where open streams are found, by namespace and name.
///
/// A context without namespace has streams of its own, as in containerd.
#[async_trait]
pub trait StreamManager: Send + Sync {
    /// Makes `stream` known as `name`, until it is removed or its lease ends.
    ///
    /// # Errors
    /// `AlreadyExists`; `ResourceExhausted` if too many are open.
    async fn register(&self, cx: &Context, name: &str, stream: Arc<dyn MessageStream>) -> Result<()>;

    /// The stream `name`.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, cx: &Context, name: &str) -> Result<Arc<dyn MessageStream>>;

    /// Forgets the stream `name` if it is still this one; does not close it.
    fn remove(&self, cx: &Context, name: &str, stream: &Arc<dyn MessageStream>);
}

/// Opens streams: what clients have in place of a [`StreamManager`].
#[async_trait]
pub trait StreamCreator: Send + Sync {
    /// Opens a stream under `name`; it is known to the daemon once this returns.
    ///
    /// # Errors
    /// As [`StreamManager::register`].
    async fn create(&self, cx: &Context, name: &str) -> Result<Arc<dyn MessageStream>>;
}
