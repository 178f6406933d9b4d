//! Where an answer sends us, and what may be taken along.

use gantry_core::{Error, Result};
use http::{HeaderMap, StatusCode, header};
use reqwest::Url;

/// Source: containerd and browsers follow ten.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// Whether an answer sends a reader elsewhere.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether both are the same place: scheme, host and port. Credentials go no further.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// The place that `headers` name, seen from `from`.
///
/// # Errors
/// `FailedPrecondition` if there is none, if it is not HTTP, or if it leaves encryption behind.
pub(crate) fn target(from: &Url, headers: &HeaderMap) -> Result<Url> {
    let wrong = |why: &str| Error::failed_precondition(format!("redirect from {}: {why}", shown(from)));
    let location = headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.len() <= 16_384)
        .ok_or_else(|| wrong("no location"))?;
    let mut url = from.join(location).map_err(|_| wrong("its location is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("its location is not HTTP"));
    }
    // Names and passwords in a location would become credentials of ours.
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return Err(wrong("its location is not HTTP"));
    }
    url.set_fragment(None);
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(wrong(&format!("it leads to plain {}", shown(&url))));
    }
    Ok(url)
}

/// A URL for people: without a query, where signatures are.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    crate::failure::clean(url.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(from: &str, location: &str) -> Result<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().unwrap());
        target(&Url::parse(from).unwrap(), &headers).map(String::from)
    }

    #[test]
    fn locations_are_followed_without_leaving_encryption() {
        assert_eq!(follow("https://a.example/x/y", "/z?q=1#f").unwrap(), "https://a.example/z?q=1");
        assert_eq!(follow("http://a.example/", "https://b.example/").unwrap(), "https://b.example/");
        assert_eq!(follow("https://a.example/", "https://u:p@b.example/").unwrap(), "https://b.example/");
        for location in ["http://a.example/", "file:///etc/passwd", "ftp://a.example/", "https://", "data:,x"]
        {
            follow("https://a.example/", location).unwrap_err();
        }
        assert!(target(&Url::parse("https://a.example/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn another_port_is_another_place() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(same_origin(&url("https://a.example/x"), &url("https://a.example:443/y")));
        assert!(!same_origin(&url("https://a.example"), &url("https://a.example:444")));
        assert!(!same_origin(&url("https://a.example"), &url("http://a.example")));
        assert!(!same_origin(&url("https://a.example"), &url("https://b.a.example")));
    }

    #[test]
    fn queries_are_not_shown() {
        assert_eq!(shown(&Url::parse("https://a.example/x?sig=secret").unwrap()), "https://a.example/x");
    }
}
