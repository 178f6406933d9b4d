//! What labels say to a collection.
//!
//! Source: features E29 to E36; semantics, "Leases and garbage collection".

use std::time::{Duration, SystemTime};

use gantry_core::wire_names::{
    LABEL_GC_BREF, LABEL_GC_EXPIRE, LABEL_GC_REF_CONTENT, LABEL_GC_REF_IMAGE, LABEL_GC_REF_SNAPSHOT,
    LABEL_GC_ROOT,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const CONDITION_SNAPSHOT: &str = "containerd.io/gc.cond.snapshot";
const CONDITION_USED_AT: &str = "containerd.io/gc.cond.value-usedat";

/// Names an object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Content(String),
    Image(String),
    Container(String),
    Snapshot { snapshotter: String, key: String },
}

/// What one label means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    /// The owner keeps these alive: one, but for a snapshotter's name that can be read in two ways.
    References(Vec<Target>),
    /// The owner lives as long as this.
    BackReference(Target),
    /// The owner is alive by itself.
    Root,
    /// The owner expires then.
    Expires(SystemTime),
    /// The owner lives as long as this snapshot, if that was used within, or not within, some time.
    Condition { snapshot: Target, used: Vec<UsedAt> },
    /// When the owner, a snapshot, was last used.
    UsedAt(SystemTime),
    /// Nothing.
    Nothing,
}

/// One condition on the last use of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsedAt {
    Within(Duration),
    NotWithin(Duration),
}

impl UsedAt {
    /// Whether a snapshot last used `at` fulfils it.
    pub(crate) fn holds(self, at: SystemTime, now: SystemTime) -> bool {
        // A time to come counts as now, give or take.
        let age = now.duration_since(at).unwrap_or_default();
        match self {
            UsedAt::Within(limit) => age < limit,
            UsedAt::NotWithin(limit) => age > limit,
        }
    }
}

/// What follows `prefix`, if only a suffix of the form `.x` or `/x` does, or nothing.
fn suffix_of<'k>(key: &'k str, prefix: &str) -> Option<&'k str> {
    key.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
}

/// The part of a snapshot label behind its prefix that names the snapshotter: up to the first slash.
fn snapshotter_of(rest: &str) -> &str {
    rest.split('/').next().unwrap_or_default()
}

fn snapshot(snapshotter: &str, key: &str) -> Target {
    Target::Snapshot { snapshotter: snapshotter.to_owned(), key: key.to_owned() }
}

/// Reads one label.
pub(crate) fn meaning(key: &str, value: &str) -> Meaning {
    // By prefix: `gc.roots` and `gc.root.x` count too, as observed.
    if key.starts_with(LABEL_GC_ROOT) {
        return Meaning::Root;
    }
    if key == LABEL_GC_EXPIRE {
        return time_of(value).map_or(Meaning::Nothing, Meaning::Expires);
    }
    if suffix_of(key, LABEL_GC_REF_CONTENT).is_some() {
        return Meaning::References(vec![Target::Content(value.to_owned())]);
    }
    if suffix_of(key, LABEL_GC_REF_IMAGE).is_some() {
        return Meaning::References(vec![Target::Image(value.to_owned())]);
    }
    if let Some(rest) = key.strip_prefix(LABEL_GC_REF_SNAPSHOT).and_then(|rest| rest.strip_prefix('.')) {
        let whole = snapshotter_of(rest);
        let mut targets = vec![snapshot(whole, value)];
        // A suffix may follow a dot as well, and a snapshotter's name may hold one: both readings keep.
        if let Some((name, _)) = whole.split_once('.') {
            targets.push(snapshot(name, value));
        }
        return Meaning::References(targets);
    }
    if let Some(rest) = key.strip_prefix(LABEL_GC_BREF).and_then(|rest| rest.strip_prefix('.')) {
        return back_reference(rest, value).map_or(Meaning::Nothing, Meaning::BackReference);
    }
    if key.starts_with(CONDITION_USED_AT) {
        return time_of(value).map_or(Meaning::Nothing, Meaning::UsedAt);
    }
    if let Some(rest) = key.strip_prefix(CONDITION_SNAPSHOT) {
        return condition(rest.trim_start_matches(['.', '/']), value).unwrap_or(Meaning::Nothing);
    }
    Meaning::Nothing
}

fn back_reference(rest: &str, value: &str) -> Option<Target> {
    if suffix_of(rest, "content").is_some() {
        return Some(Target::Content(value.to_owned()));
    }
    if suffix_of(rest, "image").is_some() {
        return Some(Target::Image(value.to_owned()));
    }
    if suffix_of(rest, "container").is_some() {
        return Some(Target::Container(value.to_owned()));
    }
    rest.strip_prefix("snapshot.").map(|name| snapshot(snapshotter_of(name), value))
}

/// `usedat<720h,usedat>10m|key`: conditions, any of which suffices, and the snapshot's key.
fn condition(rest: &str, value: &str) -> Option<Meaning> {
    let (conditions, key) = value.split_once('|')?;
    let used: Vec<UsedAt> = conditions.split(',').filter_map(used_at).collect();
    (!used.is_empty()).then(|| Meaning::Condition { snapshot: snapshot(snapshotter_of(rest), key), used })
}

fn used_at(text: &str) -> Option<UsedAt> {
    let rest = text.strip_prefix("usedat")?;
    if let Some(limit) = rest.strip_prefix('<') {
        return go_duration(limit).map(UsedAt::Within);
    }
    go_duration(rest.strip_prefix('>')?).map(UsedAt::NotWithin)
}

/// A duration as Go writes it: `1h30m`, `1.5h`, `300ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

/// A point in time as RFC 3339 writes it.
pub(crate) fn time_of(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_what_looks_like_them() {
        let content = |value: &str| Meaning::References(vec![Target::Content(value.to_owned())]);
        for key in ["gc.ref.content", "gc.ref.content.l.0", "gc.ref.content/anything"] {
            assert_eq!(meaning(&format!("containerd.io/{key}"), "d"), content("d"), "{key}");
        }
        assert_eq!(meaning("containerd.io/gc.ref.contentx", "d"), Meaning::Nothing);
        assert_eq!(
            meaning("containerd.io/gc.ref.snapshot.overlayfs/x.y", "k"),
            Meaning::References(vec![snapshot("overlayfs", "k")])
        );
        assert_eq!(
            meaning("containerd.io/gc.ref.snapshot.a.b", "k"),
            Meaning::References(vec![snapshot("a.b", "k"), snapshot("a", "k")])
        );
        assert_eq!(
            meaning("containerd.io/gc.bref.snapshot.native/1", "k"),
            Meaning::BackReference(snapshot("native", "k"))
        );
        assert_eq!(
            meaning("containerd.io/gc.bref.container.x", "c"),
            Meaning::BackReference(Target::Container("c".to_owned()))
        );
        for key in ["containerd.io/gc.root", "containerd.io/gc.roots", "containerd.io/gc.root.x"] {
            assert_eq!(meaning(key, "x"), Meaning::Root, "{key}");
        }
        assert_eq!(meaning("containerd.io/gc.expire", "tomorrow"), Meaning::Nothing);
    }

    #[test]
    fn conditions_name_a_snapshot_and_a_time() {
        let Meaning::Condition { snapshot: target, used } =
            meaning("containerd.io/gc.cond.snapshot.overlayfs/n", "bogus=1,usedat<1h30m,usedat>x|a|b")
        else {
            panic!("a condition")
        };
        assert_eq!(target, snapshot("overlayfs", "a|b"));
        assert_eq!(used, [UsedAt::Within(Duration::from_secs(5400))]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        assert!(used[0].holds(now - Duration::from_secs(5000), now));
        assert!(!used[0].holds(now - Duration::from_secs(6000), now));
        assert_eq!(go_duration("1.5h"), Some(Duration::from_secs(5400)));
        for bad in ["", "h", "3", "-1h", "1x", "1e9h"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
