//! Which ends of tasks the world has been told of, so that shim and daemon together tell each of them once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_core::events::Event;
use gantry_core::tasks::ExitRecord;
use tokio::sync::Notify;

use crate::bundle::Bundle;

/// How many are remembered. An end is told twice within seconds or never.
const MAX_REMEMBERED: usize = 4096;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    /// That the init process ended.
    Exit,
    /// That the task was deleted.
    Delete,
}

/// One telling: of which task, by namespace, container and the init process's pid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) told: Told,
    pub(crate) namespace: String,
    pub(crate) container_id: String,
    pub(crate) pid: u32,
}

impl Entry {
    pub(crate) fn of(bundle: &Bundle, pid: u32, told: Told) -> Entry {
        Entry { told, namespace: bundle.namespace.to_string(), container_id: bundle.id.to_string(), pid }
    }
}

/// The end of a task, as it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) bundle: &'a Bundle,
    /// The init process.
    pub(crate) pid: u32,
    pub(crate) exit: &'a ExitRecord,
}

impl End<'_> {
    pub(crate) fn entry(&self, told: Told) -> Entry {
        Entry::of(self.bundle, self.pid, told)
    }

    pub(crate) fn event(&self, told: Told) -> Event {
        let container_id = self.bundle.id.to_string();
        let (pid, exit_status, exited_at) = (self.pid, self.exit.status, Some(self.exit.exited_at));
        match told {
            Told::Exit => {
                Event::TaskExit { id: container_id.clone(), container_id, pid, exit_status, exited_at }
            }
            // Source: the original leaves the id empty for the init process.
            Told::Delete => {
                Event::TaskDelete { container_id, pid, exit_status, exited_at, id: String::new() }
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    known: HashSet<Entry>,
    order: VecDeque<Entry>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes `entry` and says whether it is new: only then may the caller tell of it.
    pub(crate) fn first(&self, entry: Entry) -> bool {
        {
            let mut table = self.lock();
            if !table.known.insert(entry.clone()) {
                return false;
            }
            if table.order.len() == MAX_REMEMBERED
                && let Some(oldest) = table.order.pop_front()
            {
                table.known.remove(&oldest);
            }
            table.order.push_back(entry);
        }
        self.changed.notify_waiters();
        true
    }

    /// Forgets `entry`: telling of it failed, or the number now means another process.
    pub(crate) fn forget(&self, entry: &Entry) {
        let mut table = self.lock();
        if table.known.remove(entry) {
            table.order.retain(|other| other != entry);
        }
    }

    /// Waits until `entry` is noted, at most for `patience`.
    pub(crate) async fn wait(&self, entry: &Entry, patience: Duration) {
        let noted = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before looking, so that what happens between is not missed.
                changed.as_mut().enable();
                if self.lock().known.contains(entry) {
                    return;
                }
                changed.await;
            }
        };
        // Whoever asks goes on in either case.
        let _ = tokio::time::timeout(patience, noted).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32) -> Entry {
        Entry { told: Told::Exit, namespace: "n".into(), container_id: "c".into(), pid }
    }

    #[test]
    fn an_end_is_new_once_and_again_when_forgotten() {
        let ledger = Ledger::default();
        assert!(ledger.first(entry(1)));
        assert!(!ledger.first(entry(1)));
        assert!(ledger.first(Entry { told: Told::Delete, ..entry(1) }));
        ledger.forget(&entry(1));
        assert!(ledger.first(entry(1)));
    }

    #[test]
    fn the_ledger_is_bounded() {
        let ledger = Ledger::default();
        for pid in 0..MAX_REMEMBERED as u32 + 10 {
            assert!(ledger.first(entry(pid)));
        }
        assert_eq!(ledger.lock().known.len(), MAX_REMEMBERED);
        assert_eq!(ledger.lock().order.len(), MAX_REMEMBERED);
    }
}
