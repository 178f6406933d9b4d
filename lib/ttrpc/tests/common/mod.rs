//! A server to call in tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses its part")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::{Error, ErrorKind, Result};
use gantry_ttrpc::service::no_method;
use gantry_ttrpc::{CallContext, Reply, Server, ServerConfig, ServerStream, Service};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const NAME: &str = "test.v1.Echo";

#[derive(Default)]
pub struct Echo {
    pub finished: AtomicUsize,
    pub canceled: Notify,
    pub release: Notify,
    pub entered: Notify,
}

#[async_trait]
impl Service for Echo {
    async fn call(&self, method: &str, payload: Bytes, cx: CallContext) -> Result<Bytes> {
        match method {
            "Echo" => Ok(payload),
            "Metadata" => Ok(Bytes::from(cx.metadata.get("who").unwrap_or("nobody").to_owned())),
            "Fail" => {
                let kind = ErrorKind::all().nth(usize::from(payload[0])).unwrap();
                Err(Error::new(kind, "task \"a\"").context("start"))
            }
            "Large" => Ok(vec![7; 5 << 20].into()),
            "Panic" => panic!("asked to"),
            "Wait" => {
                self.entered.notify_one();
                let waited: Result<Bytes> = cx.while_wanted(std::future::pending()).await;
                self.canceled.notify_one();
                waited
            }
            // A change: goes on whatever the caller does.
            "Change" => {
                self.entered.notify_one();
                self.release.notified().await;
                self.finished.fetch_add(1, Ordering::SeqCst);
                Ok(payload)
            }
            _ => Err(no_method(method)),
        }
    }

    fn is_stream(&self, method: &str) -> bool {
        matches!(method, "Both" | "Sum" | "Count" | "Broken")
    }

    async fn stream(&self, method: &str, mut stream: ServerStream, _cx: CallContext) -> Result<Reply> {
        match method {
            "Both" => {
                while let Some(message) = stream.recv().await {
                    stream.send(&message).await?;
                }
                Ok(Reply::End)
            }
            "Sum" => {
                let mut sum = 0;
                while let Some(message) = stream.recv().await {
                    sum += message.len();
                }
                Ok(Reply::Message(sum.to_string().into()))
            }
            "Count" => {
                let upto = stream.recv().await.map_or(0, |message| message.len());
                for at in 0..upto {
                    stream.send(at.to_string().as_bytes()).await?;
                }
                Ok(Reply::End)
            }
            "Broken" => {
                stream.send(b"first").await?;
                Err(Error::not_found("rest"))
            }
            _ => Err(no_method(method)),
        }
    }
}

/// A running server; dropping it removes its directory.
pub struct Running {
    pub path: PathBuf,
    pub echo: Arc<Echo>,
    pub stop: CancellationToken,
    pub job: JoinSet<Result<()>>,
    _dir: tempfile::TempDir,
}

pub fn start(config: ServerConfig) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sock");
    let listener = gantry_ttrpc::socket::bind(&path).unwrap();
    let echo = Arc::new(Echo::default());
    let stop = CancellationToken::new();
    let server = Server::new(config).with(NAME, echo.clone());
    let mut job = JoinSet::new();
    let ended = stop.clone();
    job.spawn(async move { server.run(listener, ended.cancelled_owned()).await });
    Running { path, echo, stop, job, _dir: dir }
}

pub fn quick() -> ServerConfig {
    ServerConfig { grace: Duration::from_millis(50), ..ServerConfig::default() }
}
