//! An explanation in words, for somebody who wants the disk back.

use gantry_core::maintenance::{Chain, Edge, Explanation, Fate, Holder, ObjectKind, ObjectName, RootReason};
use gantry_core::wire_names::{DEFAULT_NAMESPACE, LABEL_GC_EXPIRE};

use crate::output;

/// The lines that a person sees.
pub(super) fn lines(explained: &Explanation, namespace: &str) -> Vec<String> {
    let fate = match &explained.fate {
        Fate::Kept => "kept".to_owned(),
        Fate::Collected => {
            "nothing keeps it: the next collection takes it away; gantry gc run does so now".to_owned()
        }
        Fate::Stays(why) => format!("nothing keeps it, but it stays: {why}"),
    };
    let mut lines = vec![format!("{} in namespace {namespace}: {fate}", explained.object)];
    if let Some(at) = explained.expired {
        lines.push(format!("  it expired at {}", output::seconds(at)));
    }
    for chain in &explained.chains {
        lines.extend(of_chain(chain, &explained.object, namespace));
    }
    if explained.more > 0 {
        lines.push(format!("  and {} more roots keep it", explained.more));
    }
    lines
}

fn of_chain(chain: &Chain, object: &ObjectName, namespace: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let half = chain.holders.len() / 2;
    for (index, holder) in chain.holders.iter().enumerate() {
        if chain.omitted > 0 && index == half {
            lines.push(format!("{}... {} holders are left out ...", indent(index), chain.omitted));
        }
        lines.push(format!("{}held by {}, {}", indent(index), holder.object, how(holder)));
    }
    let root = chain.holders.last().map_or(object, |holder| &holder.object);
    lines.push(format!("{}{}", indent(chain.holders.len()), why(&chain.root, root, namespace)));
    lines
}

fn indent(depth: usize) -> String {
    // A long chain stays readable.
    "  ".repeat((depth + 1).min(12))
}

fn how(holder: &Holder) -> String {
    match &holder.edge {
        Edge::Target => "whose target it is".to_owned(),
        Edge::RootFilesystem => "whose file system it is".to_owned(),
        Edge::Parent => "which stands on it".to_owned(),
        Edge::LeaseResource => "which lists it".to_owned(),
        Edge::Expected => "which is to become it".to_owned(),
        Edge::Label(key) => format!("by its label {key}"),
        Edge::BackReference(key) => format!("to which the label {key} of what is held points back"),
        Edge::Condition(key) => format!("which fulfils the condition in the label {key} of what is held"),
    }
}

/// Why a root is one, and what would let go.
fn why(reason: &RootReason, root: &ObjectName, namespace: &str) -> String {
    let name = quoted(&root.name);
    let lets_go = |program: &str, words: String| {
        let named =
            if namespace == DEFAULT_NAMESPACE { String::new() } else { format!(" -n {}", quoted(namespace)) };
        format!("{program}{named} {words} lets go")
    };
    let label = |key: &str| match root.kind {
        ObjectKind::Snapshot => {
            let snapshotter = quoted(&root.snapshotter);
            lets_go("ctr", format!("snapshots --snapshotter {snapshotter} label {name} {}=", quoted(key)))
        }
        _ => lets_go("ctr", format!("content label {name} {}=", quoted(key))),
    };
    match reason {
        RootReason::Image => format!("every image is a root: {}", lets_go("gantry", format!("rmi {name}"))),
        RootReason::Container => {
            format!("every container is a root: {}", lets_go("gantry", format!("rm {name}")))
        }
        RootReason::Sandbox => "every sandbox is a root, until it is removed".to_owned(),
        RootReason::Lease(None) => {
            format!("every lease is a root: {}", lets_go("ctr", format!("leases rm {name}")))
        }
        RootReason::Lease(Some(at)) => {
            let at = output::seconds(*at);
            format!(
                "a lease is a root until it expires, at {at}: {}",
                lets_go("ctr", format!("leases rm {name}"))
            )
        }
        RootReason::Label(key) => format!("a root by its label {key}: {}", label(key)),
        RootReason::Unexpired(at) => {
            format!("a root until it expires, at {}: {}", output::seconds(*at), label(LABEL_GC_EXPIRE))
        }
        RootReason::Ingest(None) => "a write in progress is a root".to_owned(),
        RootReason::Ingest(Some(at)) => {
            format!("a write in progress is a root until {}, or until it is done", output::seconds(*at))
        }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let printable: String = word.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("'{}'", printable.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn object(kind: ObjectKind, name: &str) -> ObjectName {
        let snapshotter = if kind == ObjectKind::Snapshot { "overlayfs" } else { "" };
        ObjectName { kind, namespace: "n".into(), snapshotter: snapshotter.into(), name: name.into() }
    }

    fn holder(kind: ObjectKind, name: &str, edge: Edge) -> Holder {
        Holder { object: object(kind, name), edge }
    }

    #[test]
    fn an_explanation_ends_with_the_command_that_lets_go() {
        let lease = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let explained = Explanation {
            object: object(ObjectKind::Content, "sha256:1"),
            fate: Fate::Kept,
            chains: vec![
                Chain {
                    holders: vec![holder(ObjectKind::Lease, "a b", Edge::LeaseResource)],
                    omitted: 0,
                    root: RootReason::Lease(Some(lease)),
                },
                Chain {
                    holders: vec![
                        holder(
                            ObjectKind::Content,
                            "sha256:2",
                            Edge::Label("containerd.io/gc.ref.content.l.0".into()),
                        ),
                        holder(ObjectKind::Image, "docker.io/library/i:1", Edge::Target),
                    ],
                    omitted: 0,
                    root: RootReason::Image,
                },
            ],
            more: 3,
            expired: None,
        };
        assert_eq!(
            lines(&explained, "n"),
            [
                "content sha256:1 in namespace n: kept",
                "  held by lease a b, which lists it",
                "    a lease is a root until it expires, at 2023-11-14T22:13:20Z: ctr -n n leases rm 'a b' lets go",
                "  held by content sha256:2, by its label containerd.io/gc.ref.content.l.0",
                "    held by image docker.io/library/i:1, whose target it is",
                "      every image is a root: gantry -n n rmi docker.io/library/i:1 lets go",
                "  and 3 more roots keep it",
            ]
        );
    }

    #[test]
    fn a_root_of_its_own_and_garbage_are_told_apart() {
        let mut explained = Explanation {
            object: object(ObjectKind::Snapshot, "k"),
            fate: Fate::Kept,
            chains: vec![Chain {
                holders: vec![],
                omitted: 0,
                root: RootReason::Label("containerd.io/gc.root".into()),
            }],
            more: 0,
            expired: None,
        };
        assert_eq!(
            lines(&explained, "default"),
            [
                "snapshot k (overlayfs) in namespace default: kept",
                "  a root by its label containerd.io/gc.root: ctr snapshots --snapshotter overlayfs label k \
                 containerd.io/gc.root= lets go",
            ]
        );
        explained.fate = Fate::Collected;
        explained.chains.clear();
        assert!(lines(&explained, "default")[0].ends_with("gantry gc run does so now"));
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a-b_c./:@=+,1"), "a-b_c./:@=+,1");
        assert_eq!(quoted("it's;rm"), r"'it'\''s;rm'");
        assert_eq!(quoted("a\nb"), "'a?b'");
        assert_eq!(quoted(""), "''");
    }
}
