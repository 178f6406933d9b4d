//! The endpoint of metrics: one page, over as little of HTTP as that needs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use gantry_core::{Result, ResultExt};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::prometheus::CONTENT_TYPE;

/// Source: features C33.
const PATH: &str = "/v1/metrics";
/// The longest head of a request that is read.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How many are served at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to ask, and to take its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the page.
pub type Pages = Arc<dyn Fn() -> BoxFuture<'static, Result<String>> + Send + Sync>;

/// Answers on `listener` until `shutdown`. Each connection is asked once and then closed.
///
/// # Errors
/// None so far: what cannot be accepted now is accepted later.
pub async fn serve_metrics(
    listener: TcpListener,
    pages: Pages,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        // An accept that is dropped has taken nothing.
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let pages = Arc::clone(&pages);
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = answer(stream, &pages).await {
                            tracing::debug!(%error, "a client of the metrics is not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a client of the metrics");
                    // Without descriptors the next try would fail at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, pages: &Pages) -> Result<()> {
    let asked = tokio::time::timeout(CLIENT_TIMEOUT, read_head(&mut stream)).await;
    let (status, body, only_head) = match asked {
        Err(_) => ("408 Request Timeout", String::new(), false),
        Ok(None) => ("400 Bad Request", String::new(), false),
        Ok(Some(head)) => {
            let (method, path) = request_line(&head);
            match (method, path) {
                ("GET" | "HEAD", PATH) => match pages().await {
                    Ok(page) => ("200 OK", page, method == "HEAD"),
                    Err(error) => {
                        tracing::warn!(%error, "write a page of metrics");
                        ("500 Internal Server Error", format!("{error}\n"), false)
                    }
                },
                (_, PATH) => ("405 Method Not Allowed", String::new(), false),
                _ => ("404 Not Found", "404 page not found\n".to_owned(), false),
            }
        }
    };
    let kind = if status.starts_with("200") { CONTENT_TYPE } else { "text/plain; charset=utf-8" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !only_head {
        answer.push_str(&body);
    }
    let written = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(CLIENT_TIMEOUT, written).await {
        Ok(written) => written.context("write the answer"),
        Err(_) => Err(gantry_core::Error::deadline_exceeded("write the answer")),
    }
}

/// The head of a request; `None` if it does not end within its limit.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        head.extend_from_slice(&buffer[..length]);
        if head.len() > MAX_HEAD_BYTES {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

/// Method and path, without a query.
fn request_line(head: &str) -> (&str, &str) {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    (method, target.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(request: &[u8]) -> String {
        let pages: Pages = Arc::new(|| Box::pin(async { Ok("x 1\n".to_owned()) }));
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (answered, ()) = tokio::join!(answer(server, &pages), async {
            client.write_all(request).await.unwrap();
            client.shutdown().await.unwrap();
        });
        answered.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn one_page_is_served_and_nothing_else() {
        let page = ask(b"GET /v1/metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\nx 1\n"), "{page}");
        assert!(ask(b"HEAD /v1/metrics HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\n"));
        assert!(ask(b"POST /v1/metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405"));
        assert!(ask(b"GET /v1/metrics/../x HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        assert!(ask(b"\xff\xff\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        assert!(ask(b"GET").await.starts_with("HTTP/1.1 400"));
        assert!(ask(&vec![b'x'; MAX_HEAD_BYTES + 2000]).await.starts_with("HTTP/1.1 400"));
    }
}
