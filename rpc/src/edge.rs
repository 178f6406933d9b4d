//! What every call passes before its service: its span, its deadline, and two codes that tonic words otherwise.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use gantry_core::wire_names::NAMESPACE_HEADER;
use gantry_core::{Error, ErrorKind};
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tower::Service;
use tracing::Instrument as _;

use crate::call::{TIMEOUT_HEADER, timeout};
use crate::to_status;

#[derive(Clone)]
pub(crate) struct Edge<S> {
    inner: S,
}

impl<S> Edge<S> {
    pub(crate) fn new(inner: S) -> Self {
        Edge { inner }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let namespace = text(request.headers(), NAMESPACE_HEADER);
        let span = tracing::debug_span!("grpc", method = request.uri().path(), namespace);
        // tonic's own timer, made after this one, would answer CANCELLED.
        let deadline = timeout(text(request.headers(), TIMEOUT_HEADER)).map(tokio::time::sleep);
        let call = self.inner.call(request);
        let call = async move {
            let Some(deadline) = deadline else { return call.await.map(exhausted) };
            // The call may be dropped: its class says what becomes of its work.
            tokio::select! {
                biased;
                answer = call => answer.map(exhausted),
                () = deadline => Ok(to_status(Error::bare(ErrorKind::DeadlineExceeded)).into_http()),
            }
        };
        Box::pin(call.instrument(span))
    }
}

/// tonic answers OUT_OF_RANGE to a request above the size limit; clients know RESOURCE_EXHAUSTED.
fn exhausted(mut response: Response<Body>) -> Response<Body> {
    const TOO_LARGE: &str = "Error,%20decoded%20message%20length%20too%20large";
    let headers = response.headers_mut();
    if text(headers, "grpc-status") == "11" && text(headers, "grpc-message").starts_with(TOO_LARGE) {
        headers.insert("grpc-status", HeaderValue::from_static("8"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    async fn status(
        answer: impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    ) -> String {
        let answer = std::sync::Mutex::new(Some(answer));
        let inner = tower::service_fn(move |_: Request<Body>| answer.lock().unwrap().take().unwrap());
        let request = Request::builder().header(TIMEOUT_HEADER, "1m").body(Body::empty()).unwrap();
        let answer = Edge::new(inner).oneshot(request).await.unwrap();
        text(answer.headers(), "grpc-status").to_owned()
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_deadline_exceeded() {
        assert_eq!(status(std::future::pending()).await, "4");
    }

    #[tokio::test]
    async fn other_answers_pass() {
        let answer = || tonic::Status::out_of_range("write @2").into_http();
        assert_eq!(status(async move { Ok(answer()) }).await, "11");
    }
}
