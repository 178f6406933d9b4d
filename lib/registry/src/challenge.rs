//! What a server wants to know: `WWW-Authenticate`.
//!
//! Source: RFC 9110 section 11.6.1.

use std::collections::BTreeMap;

use http::{HeaderMap, header};

/// Headers longer than this are not looked at.
const MAX_HEADER_BYTES: usize = 8192;

/// One way to prove who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    /// Its parameters, with names in lower case.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// All challenges of an answer, in order.
pub(crate) fn parse_all(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .take(16)
        .filter(|value| value.len() <= MAX_HEADER_BYTES)
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect()
}

/// The challenges of one header. What does not read ends the list.
fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, behind) = token(rest);
        if word.is_empty() {
            return challenges;
        }
        let after_blanks = behind.trim_start_matches([' ', '\t']);
        if let Some(value) = after_blanks.strip_prefix('=')
            // `token68` of some schemes ends in `=` signs; none of ours.
            && let Some(current) = challenges.last_mut()
        {
            let Some((value, behind)) = parameter_value(value.trim_start_matches([' ', '\t'])) else {
                return challenges;
            };
            current.parameters.insert(word.to_ascii_lowercase(), value);
            rest = behind;
            continue;
        }
        challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
        rest = behind;
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Servers leave the quotes out around values that need them.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Challenge {
        let mut all = parse(text);
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn a_bearer_challenge_is_read() {
        let challenge = one(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push",error="x\"y""#,
        );
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameters["realm"], "https://auth.example/token");
        assert_eq!(challenge.parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(challenge.parameters["error"], "x\"y");
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        let all = parse(r#"Basic realm="a b", Bearer realm=https://x/y , service=s"#);
        assert_eq!(all.iter().map(|one| one.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
        assert_eq!(all[1].parameters["realm"], "https://x/y");
        assert_eq!(all[1].parameters["service"], "s");
    }

    #[test]
    fn garbage_reads_as_little() {
        for text in
            ["", ",,,", "=", "\"", "Bearer realm=\"unterminated", "Bearer realm=\"a\\", "é", "Basic ===="]
        {
            assert!(parse(text).len() <= 1, "{text}");
        }
        assert!(one("Bearer realm=\"unterminated").parameters.is_empty());
    }
}
