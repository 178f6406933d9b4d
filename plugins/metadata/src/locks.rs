//! Locks by key, made when first needed and gone with their last holder.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// One lock for each key.
pub(crate) struct KeyLocks<K> {
    held: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
}

impl<K> Default for KeyLocks<K> {
    fn default() -> Self {
        KeyLocks { held: Arc::default() }
    }
}

/// Holds the lock of one key.
pub(crate) struct KeyGuard<K: Eq + Hash> {
    locks: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
    key: K,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Clone + Eq + Hash> KeyLocks<K> {
    /// Waits for the lock of `key`.
    pub(crate) async fn lock(&self, key: K) -> KeyGuard<K> {
        let lock = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(held.entry(key.clone()).or_default())
        };
        // Made before the wait, so that giving up while waiting tidies the map too.
        let mut guard = KeyGuard { locks: Arc::clone(&self.held), key, guard: None };
        guard.guard = Some(lock.lock_owned().await);
        guard
    }
}

impl<K: Eq + Hash> Drop for KeyGuard<K> {
    fn drop(&mut self) {
        let mut held = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Whoever waits holds a copy of the Arc, taken under this map's lock.
        if held.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            held.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_held_once_and_leaves_nothing_behind() {
        let locks = KeyLocks::<&str>::default();
        let first = locks.lock("a").await;
        let other = locks.lock("b").await;
        let mut second = Box::pin(locks.lock("a"));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop((first, other));
        drop(second.await);
        let given_up = Box::pin(locks.lock("a"));
        drop(given_up);
        assert!(locks.held.lock().unwrap().is_empty());
    }
}
