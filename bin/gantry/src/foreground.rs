//! A process in the foreground: its input, output, terminal and signals are ours.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, BorrowedFd};

use clap::Args;
use gantry_client::{FifoIo, IoRequest, Process, RawTerminal, follow_size};
use gantry_core::{Error, ErrorKind};

use crate::failure::{Failure, Result};
use crate::signals::{Signals, asks_to_end};
use crate::values::signal_names::KILL;

/// How often a process is asked to end before it is made to.
const PATIENCE: u32 = 3;

/// What is passed on to a process.
#[derive(Args, Clone, Copy)]
pub(crate) struct Stdio {
    /// Give the process a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Pass standard input on to the process
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
}

impl Stdio {
    /// Checks that what is asked for can be.
    ///
    /// # Errors
    /// `FailedPrecondition` if a terminal's input is to be passed on, and there is none.
    pub(crate) fn check(self) -> Result<()> {
        if self.raw() && !std::io::stdin().is_terminal() {
            let error = Error::failed_precondition("-t with -i: standard input is no terminal");
            return Err(Failure::from(error).hint("leave out -t to pass on a file or a pipe"));
        }
        Ok(())
    }

    /// Whether our terminal passes everything on as it is typed.
    fn raw(self) -> bool {
        self.tty && self.interactive
    }

    /// The width and height of our terminal, if the process gets one.
    pub(crate) fn console_size(self) -> Option<(u64, u64)> {
        if !self.tty {
            return None;
        }
        let size = gantry_sys::pty::size(terminal()).ok().filter(|size| size.width > 0)?;
        Some((size.width.into(), size.height.into()))
    }

    /// What a task or exec is made with.
    pub(crate) fn request(self) -> IoRequest {
        IoRequest::Fifos(FifoIo::inherit(self.interactive, self.tty))
    }
}

/// The terminal whose size counts.
fn terminal() -> BorrowedFd<'static> {
    // The standard streams are open for as long as this program runs.
    static STDOUT: std::sync::LazyLock<std::io::Stdout> = std::sync::LazyLock::new(std::io::stdout);
    static STDIN: std::sync::LazyLock<std::io::Stdin> = std::sync::LazyLock::new(std::io::stdin);
    if STDOUT.is_terminal() { STDOUT.as_fd() } else { STDIN.as_fd() }
}

/// The error of being told to end by `signal` while doing `what`.
pub(crate) fn interrupted(what: &str, signal: u32) -> Failure {
    let code = i32::try_from(signal).map_or(1, |number| 128 + number);
    Failure::from(Error::canceled(format!("{what}: interrupted by signal {signal}"))).code(code)
}

/// Begins `process`, stays with it to its end, and deletes it, whatever happens; its exit code.
///
/// # Errors
/// What made it impossible to begin it or to stay with it; then what made it impossible to delete it.
pub(crate) async fn run_to_end(process: &Process, stdio: Stdio, signals: &mut Signals) -> Result<i32> {
    // Until the end of the output, too.
    let raw = if stdio.raw() { Some(RawTerminal::enter(std::io::stdin())?) } else { None };
    let stayed = stay(process, stdio, signals).await;
    let code = match stayed {
        Ok(()) => {
            let ended = process.delete().await?;
            Ok(i32::try_from(ended.status).unwrap_or(1))
        }
        Err(failure) => match process.kill_and_delete().await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failure.and(error)),
            _ => Err(failure),
        },
    };
    drop(raw);
    code
}

async fn stay(process: &Process, stdio: Stdio, signals: &mut Signals) -> Result<()> {
    if let Some(signal) = signals.pending().filter(|signal| asks_to_end(*signal)) {
        return Err(interrupted(&format!("start {:?}", process.container_id()), signal));
    }
    process.start().await?;
    let resize = async {
        if stdio.tty {
            follow_size(process, terminal()).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(resize);
    let ended = process.wait();
    tokio::pin!(ended);
    let mut asked = 0;
    loop {
        tokio::select! {
            ended = &mut ended => return ended.map(|_| ()).map_err(Failure::from),
            () = &mut resize => {}
            signal = signals.next() => {
                asked += u32::from(asks_to_end(signal));
                pass_on(process, signal, asked).await;
            }
        }
    }
}

async fn pass_on(process: &Process, signal: u32, asked: u32) {
    let ends = asks_to_end(signal);
    let signal = if ends && asked >= PATIENCE { KILL } else { signal };
    match process.kill(signal, false).await {
        // It has ended, or is about to be seen to have.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, "passing a signal on failed");
        }
        _ => {}
    }
    if ends && asked + 1 == PATIENCE {
        eprintln!("gantry: {:?} still runs; once more ends it by the signal KILL", process.container_id());
    }
}
