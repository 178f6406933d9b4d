//! Which refs have a writer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gantry_core::{Error, IngestRef, Result};

/// The refs that have a writer, and since when.
#[derive(Clone, Default)]
pub(crate) struct Locks(Arc<Mutex<HashMap<IngestRef, Instant>>>);

/// Holds a ref until it is dropped.
pub(crate) struct RefLock {
    locks: Locks,
    reference: IngestRef,
}

impl Locks {
    /// Takes `reference` at once or not at all.
    ///
    /// # Errors
    /// `Unavailable` if it has a writer.
    pub(crate) fn take(&self, reference: &IngestRef) -> Result<RefLock> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = held.get(reference) {
            let seconds = since.elapsed().as_secs_f64();
            return Err(Error::unavailable(format!("ref {reference} locked for {seconds:.3}s")));
        }
        held.insert(reference.clone(), Instant::now());
        Ok(RefLock { locks: self.clone(), reference: reference.clone() })
    }

    /// Whether `reference` has a writer.
    pub(crate) fn is_held(&self, reference: &IngestRef) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(reference)
    }

    /// Every ref that has a writer.
    pub(crate) fn held(&self) -> Vec<IngestRef> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Drop for RefLock {
    fn drop(&mut self) {
        self.locks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.reference);
    }
}
