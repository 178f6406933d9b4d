//! Answering on a Unix socket.

use std::future::Future;
use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result, ResultExt as _};
use tokio::net::UnixListener;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::edge::Edge;
use crate::incoming::incoming;
use crate::jobs::JobSet;

/// How many calls a connection may have open: a client waits for each of its containers with one.
const MAX_STREAMS: u32 = 65_536;
/// How many calls a client may give up at once before its connection is taken for an attack; clients that end cancel a wait
/// for each container.
const MAX_RESETS: usize = 4096;

/// Answers calls on `listener` until `shutdown` is ready. Then it accepts no more, ends the streams that have no end, and
/// gives what is under way `grace` to finish.
///
/// # Errors
/// Those of accepting connections.
pub async fn serve(
    listener: UnixListener,
    routes: Routes,
    jobs: JobSet,
    grace: Duration,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let mut server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .layer(tower::layer::layer_fn(Edge::new));
    let stopping = jobs.stopping().clone();
    let serving = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming(listener), stopping.clone().cancelled_owned());
    tokio::pin!(serving);
    // Neither branch is dropped half-way: the server is polled on below.
    let early = tokio::select! {
        result = &mut serving => Some(result),
        () = shutdown => None,
    };
    jobs.stop();
    let result = match early {
        Some(result) => result,
        // Clients that keep their connection open do not hold up the end.
        None => tokio::time::timeout(grace, serving).await.unwrap_or(Ok(())),
    };
    match jobs.wait(grace).await {
        0 => {}
        left => tracing::warn!(left, "jobs are still running after the grace period"),
    }
    result.map_err(|error| Error::with_source(ErrorKind::Unavailable, error)).context("serve gRPC")
}
