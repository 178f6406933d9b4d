//! The processes that were added to a task, by name.
//!
//! An exec is there until its client deletes it. A client that has left, as after `ctr tasks exec --detach`, never does;
//! so those that ended are kept in limited number, and the one that ended first is forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use gantry_core::tasks::{ExecTask, TaskStatus};
use gantry_core::{Any, Error, Result};

use crate::process::Process;

/// How many execs one task may have at once; bounds the memory that a client can make a shim use.
const MAX_EXECS: usize = 4096;

/// How many of them may have ended.
const MAX_ENDED: usize = 1024;

/// The execs of one task.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Exec>>);

/// A process that was added, and how it is to be run.
#[derive(Debug)]
struct Exec {
    process: Arc<Process>,
    /// `None` once it runs.
    spec: Option<Any>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Exec>> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a process. What is given is one that was forgotten for it: its output is the caller's to close.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` if its spec is no JSON object; `ResourceExhausted` if there are too many.
    pub(crate) fn add(&self, new: ExecTask) -> Result<Option<Arc<Process>>> {
        let exec_id = new.exec_id.into_string();
        serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(&new.spec.value)
            .map_err(|error| Error::invalid_argument(format!("exec spec: {error}")))?;
        let mut execs = self.lock();
        if execs.contains_key(&exec_id) {
            return Err(Error::already_exists(format!("id {exec_id}")));
        }
        let forgotten = first_of_too_many(&execs).and_then(|exec_id| execs.remove(&exec_id));
        if execs.len() >= MAX_EXECS {
            return Err(Error::resource_exhausted(format!("execs of task {:?}", new.container_id)));
        }
        let process = Arc::new(Process::new(&exec_id, new.io));
        execs.insert(exec_id, Exec { process, spec: Some(new.spec) });
        Ok(forgotten.map(|exec| exec.process))
    }

    /// The process of an exec id.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        let found = self.lock().get(exec_id).map(|exec| Arc::clone(&exec.process));
        found.ok_or_else(|| no_process(exec_id))
    }

    /// How to run `process`.
    ///
    /// # Errors
    /// `NotFound` if it was deleted meanwhile, or runs.
    pub(crate) fn spec(&self, process: &Arc<Process>) -> Result<Any> {
        let execs = self.lock();
        let exec = execs.get(&process.exec_id).filter(|exec| Arc::ptr_eq(&exec.process, process));
        exec.and_then(|exec| exec.spec.clone()).ok_or_else(|| no_process(&process.exec_id))
    }

    /// Lets go of what only running `process` for the first time needs.
    pub(crate) fn begun(&self, process: &Process) {
        if let Some(exec) = self.lock().get_mut(&process.exec_id) {
            exec.spec = None;
        }
    }

    /// All of them.
    pub(crate) fn processes(&self) -> Vec<Arc<Process>> {
        self.lock().values().map(|exec| Arc::clone(&exec.process)).collect()
    }

    /// The exec id of a pid.
    pub(crate) fn id_of(&self, pid: u32) -> Option<String> {
        let execs = self.lock();
        execs.values().find(|exec| exec.process.pid() == pid).map(|exec| exec.process.exec_id.clone())
    }

    /// Forgets one.
    pub(crate) fn remove(&self, exec_id: &str) {
        self.lock().remove(exec_id);
    }

    /// Forgets all of them, and gives them.
    pub(crate) fn take(&self) -> Vec<Arc<Process>> {
        std::mem::take(&mut *self.lock()).into_values().map(|exec| exec.process).collect()
    }
}

/// Which of the ended ones ended first, if there are as many as may be.
fn first_of_too_many(execs: &BTreeMap<String, Exec>) -> Option<String> {
    if execs.len() < MAX_ENDED {
        return None;
    }
    let ended = || execs.iter().filter(|(_, exec)| exec.process.status() == TaskStatus::Stopped);
    if ended().count() < MAX_ENDED {
        return None;
    }
    let first = ended().min_by_key(|(_, exec)| exec.process.ended().map(|ended| ended.at));
    first.map(|(exec_id, _)| exec_id.clone())
}

/// Source: the original's text.
fn no_process(exec_id: &str) -> Error {
    Error::not_found(format!("process does not exist {exec_id}"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use gantry_core::{ErrorKind, ExecId};

    use super::*;
    use crate::process::Ended;

    fn new(number: usize) -> ExecTask {
        ExecTask {
            container_id: "web".into(),
            exec_id: ExecId::parse(format!("exec{number}")).unwrap(),
            spec: Any::new("", "{}"),
            io: gantry_core::tasks::TaskIo::default(),
        }
    }

    fn end(process: &Process, second: usize) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
        process.end(Ended { status: 0, at });
    }

    #[test]
    fn of_the_ended_the_first_to_end_is_forgotten_and_no_other() {
        let execs = Execs::default();
        // The later it was added, the earlier it ended.
        for number in 0..MAX_ENDED {
            assert!(execs.add(new(number)).unwrap().is_none());
            end(&execs.process(&format!("exec{number}")).unwrap(), MAX_ENDED - number);
        }
        let forgotten = execs.add(new(MAX_ENDED)).unwrap().unwrap();
        assert_eq!(forgotten.exec_id, format!("exec{}", MAX_ENDED - 1));
        assert_eq!(execs.process(&forgotten.exec_id).unwrap_err().kind(), ErrorKind::NotFound);
        // One less has ended now: nobody has to go.
        assert!(execs.add(new(MAX_ENDED + 1)).unwrap().is_none());
        assert_eq!(execs.take().len(), MAX_ENDED + 1);
    }

    #[test]
    fn what_has_not_ended_is_never_forgotten() {
        let execs = Execs::default();
        for number in 0..MAX_EXECS {
            assert!(execs.add(new(number)).unwrap().is_none());
        }
        assert_eq!(execs.add(new(MAX_EXECS)).unwrap_err().kind(), ErrorKind::ResourceExhausted);
        assert_eq!(execs.add(new(0)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        execs.remove("exec0");
        execs.add(new(0)).unwrap();
    }

    #[test]
    fn a_spec_is_there_until_its_process_began() {
        let execs = Execs::default();
        execs.add(new(0)).unwrap();
        let process = execs.process("exec0").unwrap();
        assert_eq!(execs.spec(&process).unwrap().value, "{}");
        execs.begun(&process);
        assert!(execs.spec(&process).is_err());
        execs.remove("exec0");
        execs.add(new(0)).unwrap();
        assert!(execs.spec(&process).is_err(), "another has its name now");
    }
}
