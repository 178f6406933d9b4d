//! Waits for exits, one for each process.
//!
//! The shim protocol cannot say that a caller waits no more: a wait stays with the shim until its process ends. Clients
//! that attach and vanish would fill the shim with waits. So all clients of one process share the one that is under way,
//! and it goes on when they leave.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_core::tasks::ExitRecord;
use gantry_core::{Error, ErrorKind, Result};
use tokio::sync::watch;

/// What all who wait are told: an exit, or the code and the text of an error.
pub(crate) type Told = std::result::Result<ExitRecord, (i32, String)>;

/// The waits of one task that are under way, by exec id; init's is empty.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<BTreeMap<String, watch::Receiver<Option<Told>>>>);

/// One that waits with others.
pub(crate) struct Waiter(watch::Receiver<Option<Told>>);

/// Who asks the shim for all of them.
pub(crate) struct Asker {
    exec_id: String,
    told: watch::Sender<Option<Told>>,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<Option<Told>>>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits with the others for a process. The first is to ask the shim.
    pub(crate) fn join(&self, exec_id: &str) -> (Waiter, Option<Asker>) {
        let mut waits = self.lock();
        // Whoever asked may have been dropped.
        if let Some(told) = waits.get(exec_id).filter(|told| told.has_changed().is_ok()) {
            return (Waiter(told.clone()), None);
        }
        let (sender, receiver) = watch::channel(None);
        waits.insert(exec_id.to_owned(), receiver.clone());
        (Waiter(receiver), Some(Asker { exec_id: exec_id.to_owned(), told: sender }))
    }

    /// The process of this name is another one from now on, or none: who asks next, asks anew.
    pub(crate) fn forget(&self, exec_id: &str) {
        self.lock().remove(exec_id);
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, asker: Asker, exit: Result<ExitRecord>) {
        let mut waits = self.lock();
        let ours = asker.told.subscribe();
        if waits.get(&asker.exec_id).is_some_and(|told| told.same_channel(&ours)) {
            waits.remove(&asker.exec_id);
        }
        asker.told.send_replace(Some(exit.map_err(|error| (error.kind().code(), error.message()))));
    }
}

impl Waiter {
    /// Waits until everybody is told.
    ///
    /// # Errors
    /// What the shim said; `Canceled` if nobody asks it any more.
    pub(crate) async fn exit(mut self) -> Result<ExitRecord> {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(exit))) => Ok(exit.clone()),
            Ok(Some(Err((code, message)))) => Err(Error::from_status(*code, message)),
            Ok(None) | Err(_) => Err(Error::bare(ErrorKind::Canceled)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn exit(status: u32) -> ExitRecord {
        ExitRecord { id: String::new(), pid: 0, status, exited_at: SystemTime::UNIX_EPOCH }
    }

    #[tokio::test]
    async fn one_asks_for_all_and_goes_on_without_them() {
        let waits = Waits::default();
        let (first, asker) = waits.join("");
        let (second, none) = waits.join("");
        assert!(none.is_none());
        drop(first);
        let (third, none) = waits.join("");
        assert!(none.is_none());
        assert!(waits.join("exec").1.is_some(), "another process");
        waits.tell(asker.unwrap(), Ok(exit(3)));
        assert_eq!((second.exit().await.unwrap(), third.exit().await.unwrap()), (exit(3), exit(3)));
        let (waiter, asker) = waits.join("");
        waits.tell(asker.unwrap(), Err(Error::not_found("process")));
        let error = waiter.exit().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "process: not found"));
        assert!(waits.lock().keys().eq(["exec"]));
    }

    #[tokio::test]
    async fn a_new_process_of_the_same_name_is_asked_for_anew() {
        let waits = Waits::default();
        let (old, old_asker) = waits.join("exec");
        waits.forget("exec");
        let (new, new_asker) = waits.join("exec");
        waits.tell(old_asker.unwrap(), Ok(exit(1)));
        assert!(waits.join("exec").1.is_none(), "the new one is still asked for");
        waits.tell(new_asker.unwrap(), Ok(exit(2)));
        assert_eq!((old.exit().await.unwrap(), new.exit().await.unwrap()), (exit(1), exit(2)));
    }

    #[tokio::test]
    async fn an_asker_that_is_dropped_is_replaced() {
        let waits = Waits::default();
        let (waiter, asker) = waits.join("");
        drop(asker);
        assert_eq!(waiter.exit().await.unwrap_err().kind(), ErrorKind::Canceled);
        assert!(waits.join("").1.is_some());
    }
}
