//! What a takeover found and would do, for people and, as JSON, for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many problems a text shows; JSON has all of them.
const SHOWN: usize = 100;

/// What a problem does to the takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// Nothing is taken over until it is solved, or left out by this word.
    Refuses(String),
    /// The record is not taken over: its data is not there.
    LeftOut,
    /// The record is taken over, and marked: its data is to be made anew before it is used.
    Marked,
    /// Worth knowing.
    Told,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about.
    pub text: String,
    /// What follows from it.
    pub consequence: Consequence,
}

/// The word by which damaged records are left out.
pub(super) const DAMAGED: &str = "damaged";

impl Problem {
    pub(super) fn new(consequence: Consequence, text: impl Into<String>) -> Self {
        Problem { text: text.into(), consequence }
    }

    /// A record that cannot be taken over as it is.
    pub(super) fn damaged(text: impl Into<String>) -> Self {
        Self::new(Consequence::Refuses(DAMAGED.to_owned()), text)
    }
}

/// How many of each noun a namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Containers.
    pub containers: usize,
    /// Images.
    pub images: usize,
    /// Blobs.
    pub blobs: usize,
    /// Writes in progress.
    pub ingests: usize,
    /// Leases.
    pub leases: usize,
    /// Sandboxes.
    pub sandboxes: usize,
    /// Lists of mounts that are mounted.
    pub mounts: usize,
    /// Snapshots, by snapshotter.
    pub snapshots: BTreeMap<String, usize>,
}

/// What a takeover would do, or did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The schema of containerd's database, for example `v1.3`.
    pub schema: String,
    /// What is taken over, by namespace.
    pub namespaces: BTreeMap<String, Counts>,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

impl Report {
    pub(super) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The words that would have to be left out before anything is taken over.
    pub fn refusals(&self, left_out: &BTreeSet<String>) -> BTreeSet<String> {
        let words = self.problems.iter().filter_map(|problem| match &problem.consequence {
            Consequence::Refuses(word) if !left_out.contains(word) => Some(word.clone()),
            _ => None,
        });
        words.collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let nouns = [
            (self.containers, "container"),
            (self.images, "image"),
            (self.blobs, "blob"),
            (self.ingests, "ingest"),
            (self.leases, "lease"),
            (self.sandboxes, "sandbox"),
            (self.mounts, "mount"),
        ];
        for (count, noun) in nouns {
            let plural = match (count, noun) {
                (1, _) => "",
                (_, "sandbox") => "es",
                _ => "s",
            };
            if count > 0 {
                parts.push(format!("{count} {noun}{plural}"));
            }
        }
        for (snapshotter, count) in &self.snapshots {
            parts.push(format!("{count} snapshot{} of {snapshotter}", if *count == 1 { "" } else { "s" }));
        }
        match parts.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (namespace, counts) in &self.namespaces {
            writeln!(f, "namespace {namespace}: {counts}")?;
        }
        for problem in self.problems.iter().take(SHOWN) {
            match &problem.consequence {
                Consequence::Refuses(word) => writeln!(f, "problem ({word}): {}", problem.text)?,
                Consequence::LeftOut => writeln!(f, "left out: {}", problem.text)?,
                Consequence::Marked => writeln!(f, "to be made anew: {}", problem.text)?,
                Consequence::Told => writeln!(f, "note: {}", problem.text)?,
            }
        }
        match self.problems.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => writeln!(f, "and {more} more"),
        }
    }
}
