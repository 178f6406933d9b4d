//! A thread that never ends, for children that are to be signalled when this process ends: the kernel
//! means the thread that forked them.

use std::sync::{Mutex, OnceLock, mpsc};

use gantry_core::{Error, Result, ResultExt};

use super::{Child, Spawn};

type LastingJob = (Spawn, mpsc::SyncSender<Result<Child>>);

/// Forks on a thread that lives as long as this process.
pub(super) fn spawn(spawn: Spawn) -> Result<Child> {
    static THREAD: OnceLock<Mutex<Option<mpsc::SyncSender<LastingJob>>>> = OnceLock::new();
    let gone = || Error::internal("the thread that starts processes has ended");
    let (answer, answered) = mpsc::sync_channel(1);
    let jobs = {
        let mut thread = THREAD.get_or_init(Mutex::default).lock().map_err(|_| gone())?;
        match &*thread {
            Some(jobs) => jobs.clone(),
            None => {
                // When full, the caller blocks: it waits for the answer anyway.
                let (jobs, queue) = mpsc::sync_channel::<LastingJob>(16);
                std::thread::Builder::new()
                    .name("spawn".into())
                    .stack_size(256 * 1024)
                    .spawn(move || {
                        for (spawn, answer) in queue {
                            // The caller waits, so it is there.
                            drop(answer.send(spawn.spawn_here()));
                        }
                    })
                    .context("start a thread")?;
                thread.insert(jobs).clone()
            }
        }
    };
    jobs.send((spawn, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}
