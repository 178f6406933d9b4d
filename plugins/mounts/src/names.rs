//! One lock for each name, gone with its last holder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Locks = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// The locks.
#[derive(Clone, Default)]
pub(crate) struct Names {
    held: Locks,
}

/// Holds one.
pub(crate) struct Held {
    held: Locks,
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Names {
    /// Waits for the lock of `name`.
    pub(crate) async fn lock(&self, name: String) -> Held {
        let lock = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(held.entry(name.clone()).or_default())
        };
        // Made before the wait, so that giving up while waiting tidies the map too.
        let mut holder = Held { held: Arc::clone(&self.held), name, guard: None };
        holder.guard = Some(lock.lock_owned().await);
        holder
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Whoever waits holds a copy, taken under this map's lock.
        if held.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            held.remove(&self.name);
        }
    }
}
