//! Containers, sandboxes and namespaces: records alone.

use gantry_core::containers::{Container, ContainerRuntime};
use gantry_core::field_mask::FieldMask;
use gantry_core::namespaces::NamespaceRecord;
use gantry_core::sandboxes::{Sandbox, SandboxStore as _};
use gantry_core::{ContainerId, Labels, Namespace, Result, SandboxId};
use rand::Rng as _;

use super::Worker;
use crate::notes::{Kind, Subject};

/// The label that says how often a record was changed.
pub(crate) const VERSION: &str = "version";
/// How many records of a kind a client keeps.
const KEPT: usize = 6;

fn version(number: u32) -> Labels {
    Labels::from([(VERSION.to_owned(), number.to_string())])
}

fn next(facts: &[String]) -> u32 {
    facts.iter().filter_map(|fact| fact.parse::<u32>().ok()).max().map_or(0, |number| number + 1)
}

impl Worker {
    /// What to do with a kind of record: make one (`None`), or change (`false`) or delete (`true`) this one.
    fn choose(&mut self, kind: Kind) -> Option<(Subject, crate::notes::Note, bool)> {
        let count = self.notes.of(self.number, kind).len();
        let roll = self.rng.random_range(0..10);
        if count == 0 || (count < KEPT && roll < 5) {
            return None;
        }
        let delete = count >= KEPT || roll >= 7;
        self.pick(kind).map(|(subject, note)| (subject, note, delete))
    }

    pub(super) async fn container(&mut self) -> Result<()> {
        let (cx, store) = (self.cx(), self.client.services().containers.clone());
        match self.choose(Kind::Container) {
            None => {
                let name = self.name("c");
                let mut new = Container::new(ContainerId::parse(&*name)?, "io.containerd.runc.v2");
                new.labels = version(0);
                let after = vec![(self.subject(Kind::Container, name), self.yes("0"))];
                self.change(after, store.create(&cx, new)).await.map(drop)
            }
            Some((subject, note, false)) => {
                let number = next(&note.facts);
                let mut changed = Container::new(ContainerId::parse(&*subject.name)?, "");
                changed.labels = version(number);
                let mask = FieldMask::new([format!("labels.{VERSION}")]);
                let after = vec![(subject, self.yes(number.to_string()))];
                self.change(after, store.update(&cx, changed, &mask)).await.map(drop)
            }
            Some((subject, _, true)) => {
                let id = subject.name.clone();
                self.change(vec![(subject, self.no())], store.delete(&cx, &id)).await
            }
        }
    }

    pub(super) async fn sandbox(&mut self) -> Result<()> {
        let (cx, store) = (self.cx(), self.sandboxes.clone());
        let sandbox = |id: &str, number: u32| -> Result<Sandbox> {
            Ok(Sandbox {
                id: SandboxId::parse(id)?,
                labels: version(number),
                runtime: ContainerRuntime { name: "io.containerd.runc.v2".to_owned(), options: None },
                spec: None,
                sandboxer: "podsandbox".to_owned(),
                created_at: std::time::UNIX_EPOCH,
                updated_at: std::time::UNIX_EPOCH,
                extensions: Default::default(),
            })
        };
        match self.choose(Kind::Sandbox) {
            None => {
                let name = self.name("s");
                let new = sandbox(&name, 0)?;
                let after = vec![(self.subject(Kind::Sandbox, name), self.yes("0"))];
                self.change(after, store.create(&cx, new)).await.map(drop)
            }
            Some((subject, note, false)) => {
                let number = next(&note.facts);
                let changed = sandbox(&subject.name, number)?;
                let mask = FieldMask::new([format!("labels.{VERSION}")]);
                let after = vec![(subject, self.yes(number.to_string()))];
                self.change(after, store.update(&cx, changed, &mask)).await.map(drop)
            }
            Some((subject, _, true)) => {
                let id = subject.name.clone();
                self.change(vec![(subject, self.no())], store.delete(&cx, &id)).await
            }
        }
    }

    pub(super) async fn namespace(&mut self) -> Result<()> {
        let (cx, store) = (self.cx(), self.client.services().namespaces.clone());
        let record = |name: &str, number: u32| -> Result<NamespaceRecord> {
            Ok(NamespaceRecord { name: Namespace::parse(name)?, labels: version(number) })
        };
        match self.choose(Kind::Namespace) {
            None => {
                let name = self.name("x");
                let new = record(&name, 0)?;
                let after = vec![(Subject::new(Kind::Namespace, "", name), self.yes("0"))];
                self.change(after, store.create(&cx, new)).await.map(drop)
            }
            Some((subject, note, false)) => {
                let number = next(&note.facts);
                let changed = record(&subject.name, number)?;
                let mask = FieldMask::new([format!("labels.{VERSION}")]);
                let after = vec![(subject, self.yes(number.to_string()))];
                self.change(after, store.update(&cx, changed, &mask)).await.map(drop)
            }
            Some((subject, _, true)) => {
                let name = Namespace::parse(&*subject.name)?;
                self.change(vec![(subject, self.no())], store.delete(&cx, &name)).await
            }
        }
    }
}
