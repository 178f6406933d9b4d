//! A shim's log: the fifo in its bundle, read by the daemon and passed on line by line.

use std::path::Path;

use gantry_core::{Result, ResultExt};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::bundle::Bundle;
use crate::jobs::Jobs;

/// The longest line that is passed on whole.
const MAX_LINE_BYTES: usize = 4096;

/// Makes the fifo, or accepts the one that is there, and opens it.
///
/// # Errors
/// What the kernel said.
fn open(path: &Path) -> Result<pipe::Receiver> {
    gantry_sys::fifo::make(path, 0o600)?;
    // Holding both ends, reading never ends when a writer leaves: there are several, one after the other.
    let fd = gantry_sys::fifo::open_now(path, gantry_sys::fifo::End::Both)?;
    pipe::Receiver::from_owned_fd_unchecked(fd).with_context(|| format!("watch {path:?}"))
}

/// Reads the log of the shim of `bundle` until `over`, beside the others. A shim without log serves as well.
pub(crate) fn follow_in(jobs: &Jobs, bundle: &Bundle, over: &CancellationToken) {
    match open(&bundle.log()) {
        Ok(fifo) => {
            jobs.job(follow(fifo, bundle.namespace.to_string(), bundle.id.to_string(), over.clone()));
        }
        Err(error) => {
            tracing::warn!(%error, namespace = %bundle.namespace, container_id = %bundle.id, "no shim log");
        }
    }
}

/// Passes lines on until `over`, then what is still there.
async fn follow(mut fifo: pipe::Receiver, namespace: String, container_id: String, over: CancellationToken) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    let mut show = |bytes: &[u8]| {
        for byte in bytes {
            if *byte != b'\n' && line.len() < MAX_LINE_BYTES {
                line.push(*byte);
                continue;
            }
            if !line.is_empty() {
                let text = String::from_utf8_lossy(&line);
                tracing::info!(namespace, container_id, line = %text, "shim");
            }
            line.clear();
        }
    };
    loop {
        // A read that is dropped has taken nothing.
        tokio::select! {
            biased;
            () = over.cancelled() => break,
            read = fifo.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => show(&buffer[..length]),
            },
        }
    }
    while let Ok(length @ 1..) = fifo.try_read(&mut buffer) {
        show(&buffer[..length]);
    }
}
