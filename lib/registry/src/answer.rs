//! Reading answers, and what their absence means.

use std::error::Error as StdError;
use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use reqwest::Response;

use crate::failure;

/// Reads a whole body of at most `max` bytes.
///
/// # Errors
/// `ResourceExhausted` if it is longer; `Unavailable` if it breaks off or does not come within `limit`.
pub(crate) async fn read_body(mut response: Response, max: usize, limit: Duration) -> Result<Vec<u8>> {
    let too_long = || Error::resource_exhausted(format!("the answer is longer than {max} bytes"));
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    let reading = async {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > max {
                return Err(too_long());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    };
    tokio::time::timeout(limit, reading)
        .await
        .map_err(|_| Error::unavailable(format!("the answer did not end within {limit:?}")))?
        .context("read the answer")
}

/// The start of a body, for a message; whatever of it comes.
pub(crate) async fn read_start(mut response: Response, max: usize, limit: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(piece)) = response.chunk().await {
            let room = max - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() >= max {
                break;
            }
        }
    };
    // What has come by then will do.
    let _ = tokio::time::timeout(limit.min(Duration::from_secs(5)), reading).await;
    body
}

/// The causes of an error, including those that hide in an I/O error.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let current = next?;
        next = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => current.source(),
        };
        Some(current)
    })
    .take(16)
}

/// An error of the HTTP library as ours, without the URL: its query may hold a signature.
pub(crate) fn failed(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut kind = ErrorKind::Unavailable;
    let mut texts: Vec<String> = Vec::new();
    for cause in causes(&error) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            kind = match tls {
                // Waiting does not make a certificate right.
                rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::General(_)
                | rustls::Error::AlertReceived(_) => ErrorKind::FailedPrecondition,
                _ => kind,
            };
        }
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    if error.is_builder() {
        kind = ErrorKind::InvalidArgument;
    }
    Error::new(kind, failure::clean(&texts.join(": ")))
}

/// Whether the other end spoke, but not TLS: a plain server's error page, or a hang-up at our first word.
pub(crate) fn is_not_tls(error: &reqwest::Error) -> bool {
    error.is_connect()
        && causes(error).any(|cause| {
            matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidMessage(_)))
                || cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
                    error.get_ref().is_none()
                        && matches!(
                            error.kind(),
                            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                        )
                        || error.to_string().contains("tls handshake eof")
                })
        })
}
