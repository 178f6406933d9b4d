//! Reaching a daemon.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Paths up to here are used as they are. Source: `sun_path` of unix(7) holds 108 bytes with the ending zero; containerd
/// stays below 104.
const MAX_PATH_BYTES: usize = 104;

/// A channel to the Unix socket at `path`. Connects with the first call, and again after a failure.
///
/// # Errors
/// `InvalidArgument` if `path` can be no socket's.
pub fn connect(path: impl Into<PathBuf>) -> Result<Channel> {
    let path = path.into();
    if path.file_name().is_none() {
        return Err(Error::invalid_argument(format!("socket path {path:?}")));
    }
    // The host is never looked up; Source: gRPC over Unix sockets uses `localhost` as its authority.
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { stream(&path).await.map(TokioIo::new) }
    })))
}

async fn stream(path: &Path) -> std::io::Result<UnixStream> {
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        return UnixStream::connect(path).await;
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    // The directory stays open until the connection is made.
    let directory = tokio::fs::File::open(parent).await?;
    UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)).await
}
