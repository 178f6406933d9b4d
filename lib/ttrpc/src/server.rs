//! The serving end: services by name, connections, and an orderly stop.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gantry_core::{Error, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::{self, Shared};
use crate::service::Service;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Refuse peers of another user than this process's. Default: true.
    pub same_uid_only: bool,
    /// How long calls may go on after the shutdown began. Default: 5 s.
    pub grace: Duration,
    /// Connections at once; more wait to be accepted. Default: 65536, since every shim of a daemon keeps one.
    pub max_connections: usize,
    /// Calls at once on one connection; more are refused with `ResourceExhausted`. Default: 4096.
    pub max_calls: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            same_uid_only: true,
            grace: Duration::from_secs(5),
            max_connections: 65536,
            max_calls: 4096,
        }
    }
}

/// A server before it runs: its services and how it behaves.
#[derive(Default)]
pub struct Server {
    services: HashMap<String, Arc<dyn Service>>,
    config: ServerConfig,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("services", &self.services.keys())
            .field("config", &self.config)
            .finish()
    }
}

impl Server {
    /// A server without services.
    pub fn new(config: ServerConfig) -> Self {
        Server { services: HashMap::new(), config }
    }

    /// The same, offering `service` as `name`. One service may have several names.
    #[must_use]
    pub fn with(mut self, name: &str, service: Arc<dyn Service>) -> Self {
        self.services.insert(name.to_owned(), service);
        self
    }

    /// Accepts and serves until `shutdown` is ready; then accepts no more, lets calls finish within the grace period,
    /// and returns.
    ///
    /// # Errors
    /// When the listener is broken for good.
    pub async fn run(self, listener: UnixListener, shutdown: impl Future<Output = ()>) -> Result<()> {
        let stop = CancellationToken::new();
        let give_up = CancellationToken::new();
        let shared = Arc::new(Shared {
            services: self.services,
            max_calls: self.config.max_calls.max(1),
            stop: stop.clone(),
            give_up: give_up.clone(),
        });
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        let ended = loop {
            // Accepting and joining may be dropped at any time: they lose nothing.
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < self.config.max_connections => match accepted {
                    Ok((stream, _)) if !self.config.same_uid_only || same_uid(&stream) => {
                        connections.spawn(connection::serve(stream, Arc::clone(&shared)));
                    }
                    Ok(_) => tracing::warn!("refused a ttrpc peer of another user"),
                    Err(error) if is_passing(&error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => break Err(Error::io(error).context("accept")),
                },
            }
        };
        drop(listener);
        stop.cancel();
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.config.grace, all).await.is_err() {
            give_up.cancel();
            let all = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout(self.config.grace, all).await.is_err() {
                tracing::warn!(calls = connections.len(), "ttrpc calls did not end and are abandoned");
                connections.shutdown().await;
            }
        }
        ended
    }
}

/// Whether the peer runs as the same user as this process.
fn same_uid(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

/// Errors of `accept` that say nothing about the listener. Source: accept(2), "Error handling".
fn is_passing(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    !matches!(number, Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT))
}
