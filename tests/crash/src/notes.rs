//! What the clients were answered: the objects that must be there after a crash, those that must not, and those of which nobody
//! can know.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    Namespace,
    Lease,
    Container,
    Sandbox,
    Image,
    Blob,
    Ingest,
    /// Its name is the snapshotter's, a slash, the key.
    Snapshot,
    Task,
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Subject {
    pub(crate) fn new(kind: Kind, namespace: &str, name: impl Into<String>) -> Subject {
        Subject { kind, namespace: namespace.to_owned(), name: name.into() }
    }
}

/// Whether an object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum There {
    Yes,
    No,
    /// A call was not answered.
    Perhaps,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Which client made it.
    pub(crate) client: usize,
    pub(crate) there: There,
    /// The leases and images that may keep it, of the same namespace: when all have gone, a collection takes it. Empty if it needs
    /// none.
    pub(crate) owners: Vec<String>,
    /// What its data may be; anything if empty.
    pub(crate) facts: Vec<String>,
}

impl Note {
    pub(crate) fn yes(client: usize, fact: impl Into<String>) -> Note {
        Note { client, there: There::Yes, owners: Vec::new(), facts: vec![fact.into()] }
    }

    pub(crate) fn owned(self, owner: &str) -> Note {
        Note { owners: vec![owner.to_owned()], ..self }
    }

    pub(crate) fn no(client: usize) -> Note {
        Note { client, there: There::No, owners: Vec::new(), facts: Vec::new() }
    }

    /// What holds while a change from `before` to `after` is under way.
    fn between(before: &Note, after: &Note) -> Note {
        let there = if before.there == after.there { before.there } else { There::Perhaps };
        let either = |before: &[String], after: &[String]| {
            let new = after.iter().filter(|word| !before.contains(word));
            before.iter().chain(new).cloned().collect()
        };
        let owners = either(&before.owners, &after.owners);
        Note { client: after.client, there, owners, facts: either(&before.facts, &after.facts) }
    }
}

type Map = BTreeMap<Subject, Note>;

/// Hears of every note, before the call that it is about and after its answer.
pub(crate) type Hear = Box<dyn Fn(&[(Subject, Note)]) + Send + Sync>;

/// All that is known.
#[derive(Default)]
pub(crate) struct Notes {
    map: Mutex<Map>,
    hear: Option<Hear>,
}

impl Notes {
    /// Notes that `hear` is told of as well.
    pub(crate) fn told(map: Map, hear: Hear) -> Notes {
        Notes { map: Mutex::new(map), hear: Some(hear) }
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, subject: &Subject) -> Option<Note> {
        self.map().get(subject).cloned()
    }

    /// Everything known, in order.
    pub(crate) fn all(&self) -> Vec<(Subject, Note)> {
        self.map().iter().map(|(subject, note)| (subject.clone(), note.clone())).collect()
    }

    /// What `client` made of `kind` and is certainly there.
    pub(crate) fn of(&self, client: usize, kind: Kind) -> Vec<(Subject, Note)> {
        let mine = |(subject, note): &(&Subject, &Note)| {
            subject.kind == kind && note.client == client && note.there == There::Yes
        };
        self.map().iter().filter(mine).map(|(subject, note)| (subject.clone(), note.clone())).collect()
    }

    /// What the lease or image `owner` keeps.
    pub(crate) fn kept_by(&self, namespace: &str, owner: &str) -> Vec<(Subject, Note)> {
        let kept = |(subject, note): &(&Subject, &Note)| {
            subject.namespace == namespace && note.owners.iter().any(|one| one == owner)
        };
        self.map().iter().filter(kept).map(|(subject, note)| (subject.clone(), note.clone())).collect()
    }

    pub(crate) fn set(&self, changes: Vec<(Subject, Note)>) {
        if let Some(hear) = &self.hear {
            hear(&changes);
        }
        self.map().extend(changes);
    }

    /// Notes that these changes are under way; returns what was before.
    pub(crate) fn begin(&self, changes: &[(Subject, Note)]) -> Vec<(Subject, Note)> {
        let before: Vec<(Subject, Note)> = {
            let map = self.map();
            let known = |(subject, after): &(Subject, Note)| {
                let note = map.get(subject).cloned().unwrap_or_else(|| Note::no(after.client));
                (subject.clone(), note)
            };
            changes.iter().map(known).collect()
        };
        let between = before.iter().zip(changes);
        self.set(
            between.map(|((subject, old), (_, new))| (subject.clone(), Note::between(old, new))).collect(),
        );
        before
    }

    /// Replaces everything.
    pub(crate) fn replace(&self, map: Map) {
        *self.map() = map;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_change_is_under_way_both_states_are_possible() {
        let notes = Notes::default();
        let subject = Subject::new(Kind::Container, "n", "c");
        let after = vec![(subject.clone(), Note::yes(0, "0"))];
        let before = notes.begin(&after);
        assert_eq!(before[0].1.there, There::No);
        assert_eq!(notes.get(&subject).unwrap().there, There::Perhaps);
        notes.set(after);
        let update = vec![(subject.clone(), Note::yes(0, "1"))];
        notes.begin(&update);
        let now = notes.get(&subject).unwrap();
        assert_eq!((now.there, now.facts), (There::Yes, vec!["0".to_owned(), "1".to_owned()]));
    }
}
