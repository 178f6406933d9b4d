//! What the daemon does about records that containerd left at its root. Which directories those are is known here; the rest is
//! the metadata's.

use std::collections::BTreeSet;
use std::path::PathBuf;

use gantry_core::{Error, Result};
use gantry_metadata::takeover::{Outcome, Refusal, Root, Snapshotter, Taken, Takeover, take_over};

use crate::config::Config;
use crate::plugins::snapshotter_roots;

/// What the operator said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Whether it may be done.
    pub(crate) how: Takeover,
    /// What may be left out of it.
    pub(crate) left_out: BTreeSet<String>,
    /// Prints the report as JSON.
    pub(crate) json: bool,
}

/// Takes over what containerd left, or prints what that would be and refuses. What is returned is held while the daemon runs.
///
/// # Errors
/// `FailedPrecondition` if the operator has to decide; those of [`take_over`].
pub(crate) async fn run(config: &Config, options: &Options) -> Result<Option<Taken>> {
    let root = Root {
        // Source: features C45: the directories of the plugins, by kind and id.
        meta: config.root.join("io.containerd.metadata.v1.bolt/meta.db"),
        content: config.root.join("io.containerd.content.v1.content"),
        state: config.state.clone(),
        snapshotters: snapshotters(config)?,
        store: config.root.join("gantry/store.db"),
    };
    match take_over(root, options.how, options.left_out.clone()).await? {
        Outcome::Nothing => Ok(None),
        Outcome::Taken(taken, None) => Ok(Some(taken)),
        Outcome::Taken(taken, Some(report)) => {
            for line in report.to_string().lines() {
                tracing::info!("taken over: {line}");
            }
            Ok(Some(taken))
        }
        Outcome::Refused(refusal) => Err(refuse(config, options, refusal)),
    }
}

fn snapshotters(config: &Config) -> Result<Vec<Snapshotter>> {
    let roots: Vec<(String, PathBuf)> = snapshotter_roots(config)?;
    Ok(roots.into_iter().map(|(name, root)| Snapshotter { name, root }).collect())
}

/// Prints what would be taken over, and the command that does it.
fn refuse(config: &Config, options: &Options, refusal: Refusal) -> Error {
    if let Some(report) = &refusal.report {
        match serde_json::to_string_pretty(report) {
            Ok(text) if options.json => println!("{text}"),
            _ => {
                println!("containerd's records at {} (schema {}):", config.root.display(), report.schema);
                print!("{report}");
                println!("to go on: {}", command_line(std::env::args(), &refusal.arguments));
            }
        }
    }
    refusal.into()
}

/// The command that was given, with `more` in place of what it said about a takeover.
fn command_line(given: impl Iterator<Item = String>, more: &[String]) -> String {
    let mut words = Vec::new();
    let mut value_follows = false;
    for word in given {
        let own = word.starts_with("--takeover");
        if !own && !value_follows {
            words.push(word.clone());
        }
        value_follows = own && !word.contains('=');
    }
    words.extend(more.iter().cloned());
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_one_given_with_what_lets_it_go_on() {
        let line = |given: &[&str], more: &[&str]| {
            let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
            command_line(given.iter().map(|word| (*word).to_owned()), &more)
        };
        assert_eq!(
            line(&["gantryd", "--root", "/a b"], &["--takeover=on"]),
            "gantryd --root '/a b' --takeover=on"
        );
        assert_eq!(
            line(&["gantryd", "--takeover", "on", "-l", "debug", "--takeover=check"], &["--takeover=again"]),
            "gantryd -l debug --takeover=again"
        );
    }
}
