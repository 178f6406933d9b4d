//! The daemon of a round: started with whatever is armed, killed or stopped, and started again on the same root.

use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gantry_core::{Error, Result, ResultExt as _};
use gantry_testkit::{Daemon, DaemonOptions, Program, scaled};
use rustix::process::{Pid, Signal, kill_process};

use crate::check::Place;
use crate::load::{self, Course};

/// How long a start may take.
const START: Duration = Duration::from_secs(30);
/// The variable with the boot id that the daemon believes in.
const BOOT: &str = "GANTRY_TEST_BOOT_ID";

/// A root with its daemons, one after the other.
pub(crate) struct Lives {
    daemon: Daemon,
    child: Option<Child>,
    /// Which boot of the machine the daemon believes to be in; `None` for the kernel's.
    pub(crate) boot: Option<u64>,
}

impl Lives {
    /// A root below `dir`, kept afterwards.
    pub(crate) fn new(dir: &std::path::Path, root: Option<&std::path::Path>) -> Lives {
        let mut options = DaemonOptions::new(Program::gantryd()).dir(dir);
        if let Some(root) = root {
            options = options.root(root);
        }
        // Collections come often, and startup is not waited for.
        let config = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  pause_threshold = 0.5\n  deletion_threshold = 20\n  mutation_threshold = 50\n  schedule_delay = \"10ms\"\n  startup_delay = \"50ms\"\n";
        Lives { daemon: options.config(config).prepare(), child: None, boot: None }
    }

    pub(crate) fn address(&self) -> std::path::PathBuf {
        self.daemon.address()
    }

    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            address: self.daemon.address(),
            root: self.daemon.root().to_owned(),
            state: self.daemon.state().to_owned(),
            daemon: self.child.as_ref().map_or(0, Child::id),
        }
    }

    /// Starts it with the failpoints `armed`; false if it ended before it answered.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it neither answers nor ends.
    pub(crate) async fn start(&mut self, armed: &str) -> Result<bool> {
        let log = self.daemon.dir().join("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log).context("open the log")?;
        let mut command = self.daemon.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().context("a descriptor")?).stderr(log);
        command.env(gantry_failpoint::VARIABLE, armed);
        if let Some(boot) = self.boot {
            command.env(BOOT, format!("boot-{boot}"));
        }
        self.child = Some(command.spawn().context("start gantryd")?);
        let end = Instant::now() + scaled(START);
        loop {
            if self.ended()?.is_some() {
                return Ok(false);
            }
            if self.address().exists() && load::connect(&self.address(), "default")?.version().await.is_ok() {
                return Ok(true);
            }
            if Instant::now() > end {
                return Err(Error::deadline_exceeded("gantryd neither answers nor ends"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As [`Lives::start`], of a daemon that must answer.
    ///
    /// # Errors
    /// `Internal` with the end of its log if it does not.
    pub(crate) async fn start_whole(&mut self) -> Result<()> {
        if self.start("").await? {
            return Ok(());
        }
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        Err(Error::internal(format!("gantryd does not start: {tail:?}")))
    }

    /// How it ended, if it did. Its socket goes with it, so that the next start is not mistaken for this one.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait().context("wait for gantryd")?;
        if status.is_some() {
            self.child = None;
            self.forget_socket();
        }
        Ok(status)
    }

    fn forget_socket(&self) {
        // It may have removed it itself.
        let _ = std::fs::remove_file(self.address());
    }

    /// Waits until it has ended by itself; false if it does not in `time`.
    pub(crate) async fn wait(&mut self, time: Duration) -> Result<bool> {
        let end = Instant::now() + time;
        while self.child.is_some() {
            if self.ended()?.is_some() {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Ok(true)
    }

    /// Kills it, telling the clients first.
    pub(crate) fn kill(&mut self, course: &Arc<Course>) -> Result<()> {
        course.over.store(true, Ordering::SeqCst);
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill gantryd")?;
            child.wait().context("wait for gantryd")?;
            self.forget_socket();
        }
        Ok(())
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) -> Result<()> {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()));
        pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM))
            .map_err(std::io::Error::from)
            .context("stop gantryd")
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // There is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
