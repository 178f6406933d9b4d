//! What holds for every list of filters.

use gantry_core::ErrorKind;
use gantry_core::filters::{Adaptor, Filters};

use super::parts;

/// An object with any fields.
#[derive(Clone, Debug, Default)]
pub struct Object(pub Vec<(Vec<String>, String)>);

impl Adaptor for Object {
    fn field(&self, path: &[&str]) -> Option<String> {
        self.0.iter().find(|(name, _)| name == path).map(|(_, value)| value.clone())
    }
}

/// What a selector asks of a field.
#[derive(Clone, Debug)]
pub enum Asks {
    /// That it is there.
    Presence,
    /// That it is this.
    Equal(String),
    /// That it is not this, or absent.
    NotEqual(String),
    /// That this is part of it: asked by a regular expression.
    Contains(String),
}

/// A selector as its parts.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The field's path.
    pub path: Vec<String>,
    /// What is asked of it.
    pub asks: Asks,
}

impl Selector {
    /// As a client writes it.
    fn written(&self) -> String {
        let path: Vec<_> = self.path.iter().map(|part| quoted(part)).collect();
        let path = path.join(".");
        match &self.asks {
            Asks::Presence => path,
            Asks::Equal(value) => format!("{path}=={}", quoted(value)),
            Asks::NotEqual(value) => format!("{path}!={}", quoted(value)),
            Asks::Contains(value) => format!("{path}~={}", quoted(&regex::escape(value))),
        }
    }

    fn matches(&self, object: &Object) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = object.field(&path);
        match &self.asks {
            Asks::Presence => value.is_some(),
            Asks::Equal(wanted) => value.as_ref() == Some(wanted),
            Asks::NotEqual(wanted) => value.as_ref() != Some(wanted),
            Asks::Contains(part) => value.is_some_and(|value| value.contains(part)),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Any texts parse or are refused by class, and a list matches exactly where one of its filters does.
pub fn any_list(filters: &[String], object: &Object) {
    let together = match Filters::parse(filters) {
        Ok(together) => together,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{filters:?}");
            assert!(error.message().len() < 4096, "{filters:?}: {} bytes of error", error.message().len());
            return;
        }
    };
    let matches = together.matches(object);
    assert_eq!(matches, together.matches(object), "{filters:?} {object:?}: not the same twice");
    assert!(matches || !together.matches_all(), "{filters:?} match everything but {object:?}");
    let alone = filters.iter().any(|filter| {
        let filter = Filters::parse(std::slice::from_ref(filter));
        filter.expect("what parses in a list parses alone").matches(object)
    });
    assert_eq!(matches, alone || filters.is_empty(), "{filters:?} {object:?}");
}

/// What is written as the grammar wants it parses, and matches what it says.
pub fn written_list(list: &[Vec<Selector>], object: &Object) {
    let texts: Vec<String> = list
        .iter()
        .map(|selectors| selectors.iter().map(Selector::written).collect::<Vec<_>>().join(","))
        .collect();
    let filters = match Filters::parse(&texts) {
        Ok(filters) => filters,
        Err(error) => panic!("{texts:?}: {error}"),
    };
    let wanted = list.is_empty()
        || list.iter().any(|selectors| selectors.iter().all(|selector| selector.matches(object)));
    assert_eq!(filters.matches(object), wanted, "{texts:?} {object:?}");
}

/// Both, of any bytes: the first part is a filter, then come pairs of a field's path and its value.
pub fn any_bytes(input: &[u8]) {
    let parts = parts(input);
    let Some((filter, rest)) = parts.split_first() else { return };
    let fields = rest.chunks(2).map(|pair| {
        let path = pair[0].split('.').map(str::to_owned).collect();
        (path, pair.get(1).cloned().unwrap_or_default())
    });
    let object = Object(fields.collect());
    any_list(std::slice::from_ref(filter), &object);
    any_list(&parts, &object);
    let asks = |value: &String| {
        let value = value.clone();
        [Asks::Presence, Asks::Equal(value.clone()), Asks::NotEqual(value.clone()), Asks::Contains(value)]
    };
    let selectors = rest.chunks(2).take(16).map(|pair| {
        let path = pair[0].split('.').map(str::to_owned).collect();
        let asks = asks(pair.get(1).unwrap_or(filter));
        let which = filter.len() % asks.len();
        Selector { path, asks: asks[which].clone() }
    });
    // An empty text is a filter that matches everything; a list of no selectors would be written as one.
    let selectors: Vec<_> = selectors.collect();
    if !selectors.is_empty() {
        written_list(&[selectors], &object);
    }
}
