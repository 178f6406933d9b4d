//! Connections as they come in: each has to greet, and a process without descriptors waits for some.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// How long a connection may take to greet. Source: the connection timeout of Go's gRPC server, which containerd keeps.
const GREETING: Duration = Duration::from_secs(120);

/// What a greeting takes. Source: RFC 9113, section 3.4: 24 bytes, then the head of a SETTINGS frame, of nine.
const GREETING_BYTES: usize = 24 + 9;

/// How long to wait after a failure that says nothing about the listener, mostly that there are no descriptors left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Every connection to `listener`.
pub(crate) fn incoming(
    listener: UnixListener,
) -> impl Stream<Item = io::Result<Greeted<tokio::net::UnixStream>>> {
    unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(Greeted::new(stream, GREETING)), listener)),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    })
}

/// A connection that is dropped unless it greets in time. What comes after is its own.
pub(crate) struct Greeted<S> {
    stream: S,
    /// Until when, and how many bytes are still to come.
    waiting: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Greeted<S> {
    fn new(stream: S, within: Duration) -> Self {
        Greeted { stream, waiting: Some((Box::pin(sleep(within)), GREETING_BYTES)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some((late, missing)) = &mut self.waiting else { return read };
        if read.is_pending() {
            ready!(late.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 greeting")));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.waiting = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for Greeted<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn who_does_not_greet_is_dropped() {
        for said in [0, 1, GREETING_BYTES - 1] {
            let (mut client, server) = duplex(1024);
            let mut server = Greeted::new(server, SOON);
            client.write_all(&vec![b'x'; said]).await.unwrap();
            let error = server.read_exact(&mut vec![0; 1024]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{said} bytes");
        }
    }

    #[tokio::test]
    async fn who_has_greeted_may_be_silent() {
        let (mut client, server) = duplex(1024);
        let mut server = Greeted::new(server, SOON);
        client.write_all(&[b'x'; GREETING_BYTES]).await.unwrap();
        server.read_exact(&mut [0; GREETING_BYTES]).await.unwrap();
        timeout(SOON * 4, server.read_u8()).await.unwrap_err();
        client.write_u8(7).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 7);
    }
}
