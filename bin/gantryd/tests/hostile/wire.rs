//! gRPC by hand: any bytes, any order, any end.

use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gantry_api::containerd::services::content::v1::WriteContentRequest;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tonic::codegen::http::{HeaderMap, Request};

/// gRPC's codes. Source: the gRPC status codes.
pub(crate) const OK: i32 = 0;
pub(crate) const INVALID_ARGUMENT: i32 = 3;
pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
pub(crate) const UNIMPLEMENTED: i32 = 12;
pub(crate) const INTERNAL: i32 = 13;

/// How long a call may take that has something to do.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The method that writes content.
pub(crate) const WRITE: &str = "/containerd.services.content.v1.Content/Write";

/// How a call ended.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Its status; none if the stream or the connection was reset instead.
    pub(crate) code: Option<i32>,
    /// The status message, or why there is none.
    pub(crate) message: String,
    /// What came before, without what frames it.
    pub(crate) bytes: usize,
}

impl Answer {
    fn broken(why: impl std::fmt::Display) -> Answer {
        Answer { message: why.to_string(), ..Answer::default() }
    }
}

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    namespace: &'static str,
    driver: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A call under way.
pub(crate) struct Call {
    pub(crate) send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
}

/// `message` as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    framed_as(0, u32::try_from(message.len()).expect("a message fits its frame"), message)
}

/// Bytes framed with any flag and any length.
pub(crate) fn framed_as(flag: u8, length: u32, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + 5);
    frame.put_u8(flag);
    frame.put_u32(length);
    frame.put_slice(bytes);
    frame.freeze()
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Client {
        Self::with(socket, h2::client::Builder::new().initial_window_size(1 << 20)).await
    }

    pub(crate) async fn with(socket: &Path, builder: &h2::client::Builder) -> Client {
        let stream = UnixStream::connect(socket).await.expect("the daemon accepts");
        let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
        #[allow(clippy::disallowed_methods, reason = "the client aborts it when it is dropped")]
        let driver = tokio::spawn(async move { drop(connection.await) });
        Client { sender, namespace: "test", driver }
    }

    /// The same, in another namespace.
    pub(crate) fn within(mut self, namespace: &'static str) -> Client {
        self.namespace = namespace;
        self
    }

    /// Begins a call of the method at `path`.
    pub(crate) async fn begin(&self, path: &str) -> Result<Call, h2::Error> {
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", self.namespace)
            .body(())
            .expect("a request");
        let mut sender = self.sender.clone().ready().await?;
        let (response, send) = sender.send_request(request, false)?;
        Ok(Call { send, response: Some(response), body: None })
    }

    /// Calls with one message, and gives how it ended.
    pub(crate) async fn call(&self, path: &str, message: impl AsRef<[u8]>) -> Answer {
        self.call_framed(path, framed(message.as_ref())).await
    }

    /// Calls with any bytes where frames should be.
    pub(crate) async fn call_framed(&self, path: &str, frames: Bytes) -> Answer {
        match self.begin(path).await {
            Ok(mut call) => {
                // A daemon that has answered already takes nothing more; its answer is there.
                let _ = call.send.send_data(frames, true);
                call.end().await
            }
            Err(error) => Answer::broken(error),
        }
    }

    /// Opens the ingest `name`, and leaves.
    pub(crate) async fn write_once(&self, name: &str) -> Answer {
        self.call(WRITE, WriteContentRequest { r#ref: name.into(), ..Default::default() }.encode_to_vec())
            .await
    }
}

impl Call {
    pub(crate) fn send(&mut self, frames: Bytes) {
        // A stream that the daemon has ended takes nothing.
        let _ = self.send.send_data(frames, false);
    }

    pub(crate) fn close(&mut self) {
        let _ = self.send.send_data(Bytes::new(), true);
    }

    pub(crate) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Waits for the head of the answer; a call that fails at once has its status there.
    pub(crate) async fn head(&mut self) -> Result<HeaderMap, h2::Error> {
        let response = self.response.take().expect("the head is read once").await?;
        let (head, body) = response.into_parts();
        self.body = Some(body);
        Ok(head.headers)
    }

    /// Waits for bytes of a message; none at the end.
    pub(crate) async fn data(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut().expect("the head was read");
        let data = body.data().await?.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        Some(data)
    }

    /// Reads to the end.
    pub(crate) async fn end(mut self) -> Answer {
        if self.body.is_none() {
            match self.head().await {
                Ok(headers) if headers.contains_key("grpc-status") => return status(&headers, 0),
                Ok(_) => {}
                Err(error) => return Answer::broken(error),
            }
        }
        let mut bytes = 0;
        while let Some(data) = self.data().await {
            bytes += data.len();
        }
        match self.body.as_mut().expect("the head was read").trailers().await {
            Ok(Some(trailers)) => status(&trailers, bytes),
            Ok(None) => Answer { bytes, ..Answer::broken("no trailers") },
            Err(error) => Answer { bytes, ..Answer::broken(error) },
        }
    }
}

fn status(headers: &HeaderMap, bytes: usize) -> Answer {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status").and_then(|code| code.parse().ok());
    Answer { code, message: text("grpc-message").unwrap_or_default().to_owned(), bytes }
}
