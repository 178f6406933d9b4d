//! What went wrong at a registry, as an error of the right kind.

use gantry_core::{Error, ErrorKind};
use http::StatusCode;
use serde::Deserialize;

/// How much of an error's body is read.
pub(crate) const MAX_ERROR_BYTES: usize = 16 << 10;
/// How much of it is shown.
const MAX_SHOWN_CHARS: usize = 500;

/// Source: OCI distribution specification, "Error codes".
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    // Token servers answer in the shape of OAuth or in their own.
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    error_description: Option<String>,
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// The class of an HTTP status.
pub(crate) fn kind(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        400 | 405 | 411 | 415 | 431 => ErrorKind::InvalidArgument,
        401 | 407 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 | 410 => ErrorKind::NotFound,
        409 => ErrorKind::Aborted,
        412 => ErrorKind::FailedPrecondition,
        413 => ErrorKind::ResourceExhausted,
        416 => ErrorKind::OutOfRange,
        408 | 429 | 500 | 502 | 503 | 504 => ErrorKind::Unavailable,
        501 => ErrorKind::Unimplemented,
        _ => ErrorKind::Unknown,
    }
}

/// The error for an answer with `status` and `body`.
pub(crate) fn from_status(status: StatusCode, body: &[u8]) -> Error {
    let said = message(body);
    let text = format!("unexpected status {status}");
    let error = if said.is_empty() {
        Error::new(kind(status), text)
    } else {
        Error::new(kind(status), format!("{text}: {said}"))
    };
    if status == StatusCode::UNAUTHORIZED {
        return error
            .context("authorization failed: the repository does not exist or needs other credentials");
    }
    error
}

/// What a server said, made safe to print.
pub(crate) fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Body>(body) {
        Ok(body) => {
            let mut parts: Vec<String> = body
                .errors
                .into_iter()
                .take(4)
                .map(|item| match (item.code, item.message) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    (code, message) => code.or(message).unwrap_or_default(),
                })
                .collect();
            parts.extend(body.error.and_then(|value| value.as_str().map(str::to_owned)));
            parts.extend(body.error_description);
            parts.extend(body.details);
            parts.retain(|part| !part.is_empty());
            parts.join("; ")
        }
        // A page of some proxy is no message for a person.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    clean(&text)
}

/// One line of printable text of bounded length.
pub(crate) fn clean(text: &str) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_CHARS).collect();
    if text.trim().chars().count() > MAX_SHOWN_CHARS {
        line.push_str("...");
    }
    line
}

/// One error out of what each host answered, the most telling one giving the kind.
pub(crate) fn of_hosts(mut failures: Vec<(String, Error)>) -> Error {
    if failures.len() == 1 {
        let (host, error) = failures.remove(0);
        return error.context(format!("host {host}"));
    }
    // An answer tells more than silence, and a refusal more than an absence. Of equals the first counts.
    let weight = |error: &Error| match error.kind() {
        ErrorKind::Unavailable => 1,
        ErrorKind::NotFound => 2,
        _ => 3,
    };
    let mut kind = ErrorKind::NotFound;
    let mut heaviest = 0;
    for (_, error) in &failures {
        if weight(error) > heaviest {
            heaviest = weight(error);
            kind = error.kind();
        }
    }
    let text: Vec<String> = failures.iter().map(|(host, error)| format!("host {host}: {error}")).collect();
    Error::new(kind, text.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_shown() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway","detail":{}}]}"#;
        let error = from_status(StatusCode::FORBIDDEN, body);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("DENIED: no way"), "{error}");
        assert_eq!(message(br#"{"error":"invalid_grant","error_description":"bad"}"#), "invalid_grant; bad");
        assert_eq!(message(b"<html>"), "");
        assert!(message(&[b'x'; 10_000]).len() < 600);
        assert!(!message(b"\x1b[31mred\x07").contains('\x1b'));
    }

    #[test]
    fn a_refusal_tells_more_than_an_absence() {
        let error = of_hosts(vec![
            ("mirror".into(), Error::not_found("x")),
            ("origin".into(), Error::new(ErrorKind::Unauthenticated, "y")),
        ]);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.to_string().contains("host mirror: x"));
        let error =
            of_hosts(vec![("a".into(), Error::unavailable("x")), ("b".into(), Error::not_found("y"))]);
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
