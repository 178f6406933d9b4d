//! What surrounds a call: headers into a context, and a context into headers.

use std::future::Future;
use std::time::{Duration, Instant};

use gantry_core::wire_names::{LEASE_HEADER, NAMESPACE_HEADER};
use gantry_core::{Context, Error, ErrorKind, LeaseId, Namespace, Result};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Request, Response, Status};

use crate::status::{from_status, to_status};

/// Source: W3C Trace Context, section 3.2.
const TRACE_HEADER: &str = "traceparent";
/// Source: gRPC over HTTP/2, "Timeout".
pub(crate) const TIMEOUT_HEADER: &str = "grpc-timeout";
/// A longer trace is nobody's. Source: W3C Trace Context: version 00 has 55 characters.
const MAX_TRACE_BYTES: usize = 512;

/// Opens a short mutation (class a): neither deadline nor cancellation of the caller reach it, since it finishes in any case.
pub(crate) fn open<T>(request: Request<T>) -> Result<(Context, T), Status> {
    let cx = surroundings(request.metadata()).map_err(to_status)?;
    Ok((cx, request.into_inner()))
}

/// Opens a read, a wait or long work (classes b and c): the context is cancelled when the guard is dropped, and ends with the
/// caller's deadline.
pub(crate) fn attend<T>(request: Request<T>) -> Result<(Context, DropGuard, T), Status> {
    let cx = surroundings(request.metadata()).map_err(to_status)?;
    let (cx, guard) = attended(cx, request.metadata());
    Ok((cx, guard, request.into_inner()))
}

/// As [`attend`], for services that do not look at the namespace: a bad one is not noticed.
pub(crate) fn attend_unscoped<T>(request: Request<T>) -> (Context, DropGuard, T) {
    let (cx, guard) = attended(traced(request.metadata()), request.metadata());
    (cx, guard, request.into_inner())
}

/// As [`open`], for services that do not look at the namespace: a bad one is not noticed.
pub(crate) fn open_unscoped<T>(request: Request<T>) -> (Context, T) {
    (traced(request.metadata()), request.into_inner())
}

fn attended(cx: Context, headers: &MetadataMap) -> (Context, DropGuard) {
    let token = CancellationToken::new();
    let cx = cx.with_cancellation(token.clone());
    let timeout = headers.get(TIMEOUT_HEADER).and_then(|value| timeout(value.to_str().ok()?));
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let cx = match deadline {
        Some(deadline) => cx.with_deadline(deadline),
        None => cx,
    };
    (cx, token.drop_guard())
}

fn traced(headers: &MetadataMap) -> Context {
    let trace = headers.get(TRACE_HEADER).and_then(|value| value.to_str().ok());
    let trace = trace.filter(|trace| trace.len() <= MAX_TRACE_BYTES).map(str::to_owned);
    Context::background().with_trace(trace)
}

/// Namespace, lease and trace. Of two headers of a name the first counts; an empty one is none.
fn surroundings(headers: &MetadataMap) -> Result<Context> {
    let mut cx = traced(headers);
    if let Some(name) = text(headers, NAMESPACE_HEADER, "namespace validation")? {
        cx = cx.with_namespace(Namespace::parse(name)?);
    }
    if let Some(lease) = text(headers, LEASE_HEADER, "lease")? {
        cx = cx.with_lease(LeaseId::parse(lease)?);
    }
    Ok(cx)
}

fn text<'a>(headers: &'a MetadataMap, name: &str, step: &'static str) -> Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value =
        value.to_str().map_err(|_| Error::invalid_argument("header is not ASCII text").context(step))?;
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// Source: gRPC over HTTP/2: at most eight digits and a unit.
pub(crate) fn timeout(text: &str) -> Option<Duration> {
    let unit_at = text.len().checked_sub(1)?;
    let (digits, unit) = text.split_at_checked(unit_at)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The sub-message in the request's field `field`.
///
/// # Errors
/// `InvalidArgument` naming the field if it is absent; containerd itself ends there.
pub(crate) fn present<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or_else(|| Error::invalid_argument(format!("field {field:?} must not be absent")))
}

/// The request that carries `message` in the surroundings `cx`.
pub(crate) fn request<T>(cx: &Context, message: T) -> Result<Request<T>> {
    cx.check()?;
    let mut request = Request::new(message);
    if let Some(deadline) = cx.deadline() {
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    let headers = request.metadata_mut();
    let mut set = |name: &'static str, value: Option<&str>| -> Result<()> {
        if let Some(value) = value {
            let value = AsciiMetadataValue::try_from(value)
                .map_err(|_| Error::invalid_argument(format!("{name} {value:?} fits in no header")))?;
            headers.insert(name, value);
        }
        Ok(())
    };
    set(NAMESPACE_HEADER, cx.namespace_if_any().map(Namespace::as_str))?;
    set(LEASE_HEADER, cx.lease().map(LeaseId::as_str))?;
    set(TRACE_HEADER, cx.trace())?;
    Ok(request)
}

/// The answer of a call, or `Canceled` once `cx` is.
pub(crate) async fn answer<T>(
    cx: &Context,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T> {
    // Either may be dropped: dropping the call resets its stream, which is how the server learns of it.
    tokio::select! {
        biased;
        answer = call => answer.map(Response::into_inner).map_err(|status| {
            // tonic's own timer says CANCELLED; nobody else cancelled this call.
            if status.code() == Code::Cancelled && cx.deadline().is_some_and(|end| end <= Instant::now()) {
                return Error::bare(ErrorKind::DeadlineExceeded);
            }
            from_status(status)
        }),
        () = cx.cancellation().cancelled() => Err(Error::bare(ErrorKind::Canceled)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn the_first_namespace_header_counts() {
        let (cx, ()) = open(with(&[(NAMESPACE_HEADER, "a"), (NAMESPACE_HEADER, "b")])).unwrap();
        assert_eq!(cx.namespace().unwrap().as_str(), "a");
    }

    #[test]
    fn a_missing_namespace_fails_only_where_it_is_needed() {
        for request in [with(&[]), with(&[(NAMESPACE_HEADER, "")])] {
            let (cx, ()) = open(request).unwrap();
            assert_eq!(cx.namespace().unwrap_err().kind(), ErrorKind::FailedPrecondition);
        }
    }

    #[test]
    fn an_invalid_namespace_is_an_invalid_argument() {
        let status = open(with(&[(NAMESPACE_HEADER, "a--b")])).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with("namespace validation: identifier \"a--b\""), "{status}");
        let (cx, _guard, ()) = attend_unscoped(with(&[(NAMESPACE_HEADER, "a--b")]));
        assert!(cx.namespace_if_any().is_none());
    }

    #[test]
    fn the_context_is_cancelled_when_the_caller_leaves() {
        let (cx, guard, ()) = attend(with(&[(TIMEOUT_HEADER, "5S")])).unwrap();
        cx.check().unwrap();
        assert!(cx.deadline().is_some());
        drop(guard);
        assert_eq!(cx.check().unwrap_err().kind(), ErrorKind::Canceled);
    }

    #[test]
    fn timeouts_follow_the_grammar() {
        assert_eq!(timeout("7m"), Some(Duration::from_millis(7)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "-1S", "1", "123456789S", "1x", "1ä"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_context_survives_the_wire() {
        let cx = Context::new(Namespace::parse("k8s.io").unwrap())
            .with_lease(LeaseId::parse("lease 1").unwrap())
            .with_trace(Some("00-aa-bb-01".into()));
        let (back, ()) = open(request(&cx, ()).unwrap()).unwrap();
        assert_eq!(back.namespace().unwrap().as_str(), "k8s.io");
        assert_eq!(back.lease().unwrap().as_str(), "lease 1");
        assert_eq!(back.trace(), Some("00-aa-bb-01"));
        let cx = Context::background().with_lease(LeaseId::parse("a\nb").unwrap());
        assert_eq!(request(&cx, ()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
