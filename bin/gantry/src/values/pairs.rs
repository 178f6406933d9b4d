//! Pairs of words: labels and credentials.

use gantry_core::labels;
use gantry_registry::Credentials;

/// Reads `key=value`; without a value it is empty.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    labels::validate(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads `name:secret`.
pub(crate) fn credentials(text: &str) -> Result<Credentials, String> {
    match text.split_once(':') {
        Some((name, secret)) if !secret.is_empty() => {
            Ok(Credentials { username: name.to_owned(), secret: secret.to_owned() })
        }
        // Not the text itself: it may be the secret.
        _ => Err("credentials are written NAME:SECRET".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_a_secret_that_is_not_shown() {
        let read = credentials("me:a:b").unwrap();
        assert_eq!((read.username.as_str(), read.secret.as_str()), ("me", "a:b"));
        assert!(!credentials("hunter2").unwrap_err().contains("hunter2"));
        credentials("me:").unwrap_err();
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a"), Ok(("a".to_owned(), String::new())));
        label("=b").unwrap_err();
    }
}
