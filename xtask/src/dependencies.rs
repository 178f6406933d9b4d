//! Licences, sources and duplicate versions of what is built, against the lists in `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;

use crate::metadata::{Edge, Metadata};
use crate::step::{Result, at, say};

/// The lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    licences: BTreeSet<String>,
    sources: BTreeSet<String>,
    #[serde(default)]
    licence_of: Vec<LicenceOf>,
    #[serde(default)]
    duplicate: Vec<Duplicate>,
}

/// A crate whose licence was looked up by a person: it names none, or one that is not for everybody.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LicenceOf {
    name: String,
    licence: String,
    /// Where it was found, or why it is acceptable.
    because: String,
}

/// A crate that may be there in several versions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Duplicate {
    name: String,
    /// The crates that ask for an older version than the rest.
    forced_by: Vec<String>,
}

/// Checks everything in the graph against the lists.
pub(crate) fn dependencies() -> Result<()> {
    say("licences, sources, duplicate versions");
    let path = gantry_testkit::workspace_root().join("deny.toml");
    let lists: Lists = toml::from_str(&fs::read_to_string(&path).map_err(at(&path))?)
        .map_err(|error| format!("deny.toml: {error}"))?;
    let metadata = Metadata::read()?;
    let mut wrong = Vec::new();
    let mut count = 0;
    for package in metadata.used() {
        count += 1;
        let who = format!("{} {}", package.name, package.version);
        let known = lists.licence_of.iter().find(|known| known.name == package.name);
        match (package.license.as_deref(), known) {
            (_, Some(known)) if known.because.is_empty() => {
                wrong.push(format!("deny.toml: no reason for {who}"))
            }
            // What a person looked up counts as long as the crate does not say otherwise.
            (None, Some(_)) => {}
            (Some(licence), Some(known)) => match permitted(licence, &[known.licence.clone()].into()) {
                Ok(true) => {}
                _ => wrong.push(format!("{who} has the licence {licence}, not {}", known.licence)),
            },
            (None, None) => wrong.push(format!("{who} names no licence")),
            (Some(licence), None) => match permitted(licence, &lists.licences) {
                Ok(true) => {}
                Ok(false) => wrong.push(format!("{who} has the licence {licence}")),
                Err(error) => wrong.push(format!("{who}: {error}")),
            },
        }
        if let Some(source) = package.source.as_deref().filter(|source| !lists.sources.contains(*source)) {
            wrong.push(format!("{who} comes from {source}"));
        }
    }
    duplicates(&metadata, &lists.duplicate, &mut wrong);
    if wrong.is_empty() {
        eprintln!("{count} crates, all as deny.toml says");
        return Ok(());
    }
    Err(format!("not as deny.toml says:\n  {}", wrong.join("\n  ")))
}

fn duplicates(metadata: &Metadata, listed: &[Duplicate], wrong: &mut Vec<String>) {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata.used() {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let edges = metadata.edges();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let users = users(&edges, name);
        match listed.iter().find(|entry| entry.name == *name) {
            None => {
                let by = |version: &&str| format!("{version} used by {:?}", users_of(&edges, name, version));
                let all: Vec<String> = versions.iter().map(by).collect();
                wrong.push(format!("{name} is there in versions {}", all.join(", ")));
            }
            Some(entry) => {
                for by in entry.forced_by.iter().filter(|by| !users.contains(by.as_str())) {
                    wrong.push(format!("deny.toml: {by} does not use {name} any more"));
                }
            }
        }
    }
    for entry in listed
        .iter()
        .filter(|entry| versions.get(entry.name.as_str()).is_none_or(|versions| versions.len() < 2))
    {
        wrong.push(format!("deny.toml: {} is no duplicate any more", entry.name));
    }
}

fn users<'a>(edges: &'a [Edge<'a>], name: &str) -> BTreeSet<&'a str> {
    edges.iter().filter(|edge| edge.to.name == name).map(|edge| edge.from.name.as_str()).collect()
}

fn users_of<'a>(edges: &'a [Edge<'a>], name: &str, version: &str) -> BTreeSet<&'a str> {
    let these = edges.iter().filter(|edge| edge.to.name == name && edge.to.version == version);
    these.map(|edge| edge.from.name.as_str()).collect()
}

/// Whether the SPDX expression can be met with `allowed` licences.
///
/// Source: SPDX specification, annex D. `/` is how older crates write `OR`.
fn permitted(expression: &str, allowed: &BTreeSet<String>) -> Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0, allowed };
    let met = parser.any()?;
    if parser.at == words.len() { Ok(met) } else { Err(format!("cannot read the licence {expression:?}")) }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a BTreeSet<String>,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Ok(met)
    }

    fn all(&mut self) -> Result<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool> {
        if self.take("(") {
            let met = self.any()?;
            return if self.take(")") {
                Ok(met)
            } else {
                Err("a licence expression with an open parenthesis".to_owned())
            };
        }
        let name = *self.words.get(self.at).ok_or("a licence expression that ends early")?;
        self.at += 1;
        let mut name = name.to_owned();
        if self.take("WITH") {
            let exception = self.words.get(self.at).ok_or("a licence expression that ends early")?;
            self.at += 1;
            name = format!("{name} WITH {exception}");
        }
        Ok(self.allowed.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::permitted;

    #[test]
    fn expressions_are_met_by_what_is_allowed() {
        let allowed: BTreeSet<String> =
            ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for met in [
            "MIT",
            "MIT OR Apache-2.0",
            "Apache-2.0/MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(permitted(met, &allowed), Ok(true), "{met}");
        }
        for not_met in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "Apache-2.0 OR GPL-2.0"] {
            assert_eq!(permitted(not_met, &allowed), Ok(false), "{not_met}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT MIT"] {
            assert!(permitted(broken, &allowed).is_err(), "{broken}");
        }
    }
}
