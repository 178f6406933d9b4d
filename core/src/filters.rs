//! Filters: `field.path==value,other!=x` and the like, one language for every list.
//!
//! A list of filter strings matches if any of them does; a filter matches if all its comma-separated selectors do.
//! A selector is a path (presence) or a path, an operator (`==`, `!=`, `~=`) and a value. Source: containerd's filter
//! grammar as observed; see the tests for its corners.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use crate::{Error, Result};

/// What can be filtered: gives the value at a path, if it has one.
pub trait Adaptor {
    /// The value at `path`; `None` means absent, which `!=` matches too.
    fn field(&self, path: &[&str]) -> Option<String>;
}

/// Looks `path` up among labels or annotations: the parts joined by `.` are the key.
pub fn label_field(labels: &std::collections::BTreeMap<String, String>, path: &[&str]) -> Option<String> {
    labels.get(&path.join(".")).filter(|value| !value.is_empty()).cloned()
}

/// How long one filter may be, in bytes; longer ones are refused so that a list call's cost stays bounded.
pub const MAX_FILTER_BYTES: usize = 64 * 1024;

/// How long all filters of one list may be together, in bytes.
pub const MAX_FILTERS_BYTES: usize = 4 << 20;

/// How many selectors all filters of one list may have together: each is looked at for every record.
pub const MAX_SELECTORS: usize = 1 << 16;

/// What all regular expressions of one list may take together once they are compiled, in bytes.
const EXPRESSIONS_BYTES: usize = 16 << 20;

/// An expression is compiled within the first of these sizes that it fits, and that size is what it is counted for.
const EXPRESSION_BYTES: [usize; 3] = [64 << 10, 1 << 20, 8 << 20];

/// What one expression may keep while it searches, in bytes; beyond that it searches more slowly.
const SEARCH_BYTES: usize = 256 << 10;

/// A value that no field has.
const UNEQUALLED: &str = "\0";

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    /// `None`: the expression does not compile, and matches nothing.
    Matches(Option<Regex>),
}

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

/// A parsed list of filters.
#[derive(Debug, Default)]
pub struct Filters {
    /// One list of selectors for each filter; no filters at all match everything.
    any_of: Vec<Vec<Selector>>,
}

impl Filters {
    /// Parses every filter.
    ///
    /// # Errors
    /// `InvalidArgument` with the filter and the position where it stops making sense, or with the bound that the list
    /// exceeds: [`MAX_FILTER_BYTES`], [`MAX_FILTERS_BYTES`], [`MAX_SELECTORS`], or the size of its expressions.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self> {
        let length = filters.iter().map(|filter| filter.as_ref().len()).sum::<usize>();
        if length > MAX_FILTERS_BYTES || filters.len() > MAX_SELECTORS {
            return Err(Error::invalid_argument(format!(
                "{} filters of {length} bytes: more than {MAX_SELECTORS}, or more than {MAX_FILTERS_BYTES} bytes",
                filters.len()
            )));
        }
        let mut left = Left { selectors: MAX_SELECTORS, expressions: EXPRESSIONS_BYTES };
        let any_of = filters
            .iter()
            .map(|filter| Parser::new(filter.as_ref(), &mut left).filter())
            .collect::<Result<_>>()?;
        Ok(Filters { any_of })
    }

    /// Whether every object matches, whatever its fields.
    pub fn matches_all(&self) -> bool {
        self.any_of.is_empty() || self.any_of.iter().any(Vec::is_empty)
    }

    /// The values that the field `name` has to have one of, if every filter demands that it equal some value: then only the
    /// objects that have these need to be looked at.
    pub fn only(&self, name: &str) -> Option<BTreeSet<String>> {
        if self.any_of.is_empty() {
            return None;
        }
        let demanded = |selector: &Selector| match &selector.test {
            Test::Equal(value) if selector.path == [name] => Some(value.clone()),
            _ => None,
        };
        self.any_of.iter().map(|selectors| selectors.iter().find_map(demanded)).collect()
    }

    /// Whether any filter matches `object`.
    pub fn matches(&self, object: &(impl Adaptor + ?Sized)) -> bool {
        self.any_of.is_empty()
            || self.any_of.iter().any(|selectors| selectors.iter().all(|selector| selector.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &(impl Adaptor + ?Sized)) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = object.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.as_deref() == Some(wanted),
            Test::NotEqual(wanted) => value.as_deref() != Some(wanted),
            Test::Matches(expression) => match (expression, value) {
                (Some(expression), Some(value)) => expression.is_match(&value),
                _ => false,
            },
        }
    }
}

/// What the filters of one list may still use.
struct Left {
    selectors: usize,
    /// Bytes of compiled expressions.
    expressions: usize,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    left: &'a mut Left,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, left: &'a mut Left) -> Self {
        Parser { text, at: 0, left }
    }

    fn wrong(&self, why: &str) -> Error {
        let shown: String = self.text.chars().take(200).collect();
        Error::invalid_argument(format!("filter {shown:?}: parse error at position {}: {why}", self.at))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Blanks may stand between any two parts. Source: containerd's scanner; its own client writes `a==b, c==d`.
    fn skip_blanks(&mut self) {
        let blanks = self.rest().len() - self.rest().trim_start().len();
        self.at += blanks;
    }

    fn filter(mut self) -> Result<Vec<Selector>> {
        if self.text.len() > MAX_FILTER_BYTES {
            return Err(Error::invalid_argument(format!(
                "filter of {} bytes: longer than {MAX_FILTER_BYTES} bytes",
                self.text.len()
            )));
        }
        let mut selectors = Vec::new();
        if self.text.is_empty() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            self.skip_blanks();
            match self.peek() {
                None => return Ok(selectors),
                Some(',') => self.at += 1,
                Some(other) => return Err(self.wrong(&format!("expected ',' or the end, found {other:?}"))),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector> {
        self.left.selectors = self
            .left
            .selectors
            .checked_sub(1)
            .ok_or_else(|| self.wrong(&format!("more than {MAX_SELECTORS} selectors in one list")))?;
        let path = self.path()?;
        self.skip_blanks();
        let operator = match self.rest().as_bytes() {
            [] | [b',', ..] => return Ok(Selector { path, test: Test::Present }),
            [b'=', b'=', ..] => "==",
            [b'!', b'=', ..] => "!=",
            [b'~', b'=', ..] => "~=",
            _ => return Err(self.wrong("expected an operator: ==, != or ~=")),
        };
        self.at += operator.len();
        let value = self.value(operator == "~=")?;
        let test = match operator {
            "==" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            _ => Test::Matches(self.expression(&value)?),
        };
        Ok(Selector { path, test })
    }

    /// Compiles `pattern`; `None` if it is none. A short pattern can compile to something very large.
    fn expression(&mut self, pattern: &str) -> Result<Option<Regex>> {
        for size in EXPRESSION_BYTES.into_iter().filter(|size| *size <= self.left.expressions) {
            match RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(SEARCH_BYTES).build() {
                Ok(expression) => {
                    self.left.expressions -= size;
                    return Ok(Some(expression));
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(_) => return Ok(None),
            }
        }
        Err(self.wrong("the regular expressions of the list are too large"))
    }

    fn path(&mut self) -> Result<Vec<String>> {
        let mut path = Vec::new();
        loop {
            self.skip_blanks();
            path.push(match self.peek() {
                Some('"') => self.quoted('"')?,
                _ => {
                    let length = self
                        .rest()
                        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                        .unwrap_or_else(|| self.rest().len());
                    if length == 0 {
                        return Err(self.wrong("expected a field name"));
                    }
                    let name = self.rest()[..length].to_owned();
                    self.at += length;
                    name
                }
            });
            self.skip_blanks();
            if self.peek() != Some('.') {
                return Ok(path);
            }
            self.at += 1;
        }
    }

    fn value(&mut self, expression: bool) -> Result<String> {
        self.skip_blanks();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(delimiter @ ('/' | '|')) if expression => self.quoted(delimiter),
            Some('/' | '|') => {
                // The original reads `/images/create` unquoted behind `==` as something that no value equals.
                let length = self.rest().find([',', '"', ' ']).unwrap_or_else(|| self.rest().len());
                self.at += length;
                Ok(UNEQUALLED.to_owned())
            }
            _ => {
                let length = self
                    .rest()
                    .find(|c: char| c == ',' || c == '"' || c.is_whitespace() || c.is_control())
                    .unwrap_or_else(|| self.rest().len());
                if length == 0 {
                    return Err(self.wrong("expected a value"));
                }
                let value = self.rest()[..length].to_owned();
                self.at += length;
                Ok(value)
            }
        }
    }

    /// A Go string literal between `delimiter`s. Between `/` or `|` only the delimiter itself is escaped: the rest
    /// belongs to the regular expression.
    fn quoted(&mut self, delimiter: char) -> Result<String> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        chars.next();
        while let Some((offset, c)) = chars.next() {
            if c == delimiter {
                self.at += offset + c.len_utf8();
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            if delimiter != '"' {
                if escaped != delimiter {
                    out.push('\\');
                }
                out.push(escaped);
                continue;
            }
            let hex = |chars: &mut std::str::CharIndices<'_>, digits: usize| {
                let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                (text.len() == digits)
                    .then(|| u32::from_str_radix(&text, 16).ok())
                    .flatten()
                    .and_then(char::from_u32)
            };
            let unescaped = match escaped {
                'a' => Some('\x07'),
                'b' => Some('\x08'),
                'f' => Some('\x0c'),
                'n' => Some('\n'),
                'r' => Some('\r'),
                't' => Some('\t'),
                'v' => Some('\x0b'),
                '\\' | '"' | '\'' => Some(escaped),
                'x' => hex(&mut chars, 2),
                'u' => hex(&mut chars, 4),
                'U' => hex(&mut chars, 8),
                _ => None,
            };
            out.push(unescaped.ok_or_else(|| self.wrong("invalid escape in a quoted value"))?);
        }
        Err(self.wrong("unterminated quoted value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    struct Thing(&'static [(&'static str, &'static str)]);

    impl Adaptor for Thing {
        fn field(&self, path: &[&str]) -> Option<String> {
            let path = path.join(".");
            self.0.iter().find(|(key, _)| *key == path).map(|(_, value)| (*value).to_owned())
        }
    }

    fn matches(filter: &str) -> bool {
        let thing = Thing(&[
            ("id", "c1"),
            ("topic", "/images/create"),
            ("labels.with.dot", "x"),
            ("labels.a/b-c", "y"),
            ("name", "a,b"),
        ]);
        Filters::parse(&[filter]).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&thing)
    }

    #[test]
    fn operators_and_presence() {
        assert!(matches("id==c1"));
        assert!(!matches("id==c2"));
        assert!(matches("id!=c2"));
        assert!(matches("bogus!=1"), "an absent field differs from everything");
        assert!(matches("id"));
        assert!(!matches("bogus"));
        assert!(matches("id~=^c[0-9]$"));
        assert!(matches("id==c1,name==\"a,b\""));
        assert!(!matches("id==c1,name==x"));
        assert!(matches("id==c1, name==\"a,b\""), "as the Go client writes it");
        assert!(matches(" id == c1 , name != x "));
    }

    #[test]
    fn quoting_follows_the_original() {
        assert!(matches("topic==\"/images/create\""));
        assert!(!matches("topic==/images/create"), "an unquoted slash equals nothing");
        assert!(matches("topic~=/images/"));
        assert!(matches("topic~=|^/images|"));
        assert!(matches("labels.with.dot==x"));
        assert!(matches("labels.\"with.dot\"==x"));
        assert!(matches("labels.\"a/b-c\"==y"));
        assert!(matches("id==\"\\x63\\u0031\""));
        for odd in ["id==c1==c2", "id==c1;", "id=='c1"] {
            assert!(!matches(odd), "{odd} parses, and matches nothing here");
        }
    }

    #[test]
    fn what_does_not_parse_says_where() {
        for bad in ["labels.a-b==x", "a/b==x", "id=c1", "id==", "id==\"x", "==x", "id==c1,", "id==\"\\q\""] {
            let error = Filters::parse(&[bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
            assert!(error.to_string().contains("position"), "{error}");
        }
    }

    #[test]
    fn a_field_that_every_filter_pins_is_known() {
        let only = |filters: &[&str]| Filters::parse(filters).unwrap().only("id");
        let values = |values: &[&str]| Some(values.iter().map(ToString::to_string).collect());
        assert_eq!(only(&["id==a"]), values(&["a"]));
        assert_eq!(only(&["labels.x==y,id==b", "id==a"]), values(&["a", "b"]));
        for open in
            [&[][..], &[""], &["id==a", ""], &["id==a", "labels.x==y"], &["id!=a"], &["id~=a"], &["id"]]
        {
            assert_eq!(only(open), None, "{open:?}");
        }
    }

    #[test]
    fn a_bad_expression_matches_nothing_and_is_no_error() {
        assert!(!matches("topic~=("));
    }

    #[test]
    fn lists_that_would_take_too_much_are_refused() {
        let refused = |filters: &[String]| {
            let error = Filters::parse(filters).map(|_| "a list").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().len() < 1000, "{error}");
        };
        refused(&["a".repeat(MAX_FILTER_BYTES + 1)]);
        refused(&vec!["a".repeat(MAX_FILTER_BYTES); MAX_FILTERS_BYTES / MAX_FILTER_BYTES + 1]);
        refused(&vec![String::new(); MAX_SELECTORS + 1]);
        refused(&vec!["a,".repeat(1000) + "a"; MAX_SELECTORS / 1000 + 1]);
        Filters::parse(&vec!["a==1"; MAX_SELECTORS]).unwrap();
        // Each is short, and takes megabytes once compiled.
        refused(&["a~=/\\w{1000}/".to_owned()]);
        refused(&vec!["a~=/\\w{60}/".to_owned(); 1000]);
        refused(&vec!["a~=/x{9}/".to_owned(); EXPRESSIONS_BYTES / EXPRESSION_BYTES[0] + 1]);
        Filters::parse(&["a~=/x{9}/"; 100]).unwrap();
    }

    #[test]
    fn an_empty_filter_matches_everything() {
        let filters = Filters::parse(&["id==nothing", ""]).unwrap();
        assert!(filters.matches(&Thing(&[])));
        assert!(filters.matches_all());
        assert!(Filters::parse::<&str>(&[]).unwrap().matches(&Thing(&[])));
    }
}
