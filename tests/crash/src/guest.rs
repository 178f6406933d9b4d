//! The part of a round of power loss that runs within the machine: check what the machine before had answered, then work until
//! the power goes.
//!
//! What is known comes on a disk of its own and goes out over the serial line, a line for each change, drained before the call
//! that it is about is made. `cargo xtask crash --kind power` is the other end.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use gantry_core::{Error, Result, ResultExt as _};

use crate::check::{After, check};
use crate::daemon::Lives;
use crate::load::{Load, Tolerance};
use crate::notes::{Note, Notes, Subject};
use crate::rounds::Clients;

/// What the machine is told.
#[derive(Debug, Args)]
pub(crate) struct Guest {
    /// The directory that the power loss is about.
    #[arg(long)]
    data: PathBuf,
    /// The disk with what is known: its length as a line, then JSON.
    #[arg(long)]
    notes: PathBuf,
    #[arg(long)]
    seed: u64,
    /// The round.
    #[arg(long)]
    life: u64,
}

/// A line for the other end, and everything before it, is out when this returns.
fn tell(lines: &str) {
    let mut out = std::io::stdout().lock();
    // With nobody to hear it there is no test.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    let _ = rustix::termios::tcdrain(&out);
}

fn as_lines(changes: &[(Subject, Note)]) -> String {
    let line = |change| serde_json::to_string(change).map(|json| format!("@J {json}\n")).unwrap_or_default();
    changes.iter().map(line).collect()
}

fn read(disk: &Path) -> Result<Vec<(Subject, Note)>> {
    let step = || format!("read {}", disk.display());
    let mut file = std::fs::File::open(disk).with_context(step)?;
    let mut head = [0_u8; 16];
    file.read_exact(&mut head).with_context(step)?;
    let wrong = |what: String| Error::unknown(what).context(step());
    let length =
        String::from_utf8_lossy(&head).trim().parse::<u64>().map_err(|error| wrong(error.to_string()))?;
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).with_context(step)?;
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}

/// Checks, then works for ever.
///
/// # Errors
/// Those of the test itself.
pub(crate) async fn guest(guest: &Guest) -> Result<()> {
    let known = read(&guest.notes)?;
    let dir = Path::new("/run/crash");
    std::fs::create_dir_all(dir).context("make /run/crash")?;
    let mut lives = Lives::new(dir, Some(&guest.data.join("root")));
    if let Err(error) = lives.start_whole().await {
        tell(&format!("@V {error}\n@E\n"));
        return Err(error);
    }
    let notes = Arc::new(Notes::default());
    notes.replace(known.into_iter().collect());
    match check(&lives.place(), &notes, After::PowerLoss).await {
        Ok(wrong) => tell(&wrong.iter().map(|wrong| format!("@V {wrong}\n")).collect::<String>()),
        Err(error) => tell(&format!("@V check: {error}\n")),
    }
    let rebuilt = lives.log().matches("rebuilt a snapshot").count();
    let all = notes.all();
    tell(&format!("@R\n{}@C {} {rebuilt}\n", as_lines(&all), all.len()));
    let notes =
        Arc::new(Notes::told(all.into_iter().collect(), Box::new(|changes| tell(&as_lines(changes)))));
    let load = Load {
        address: lives.address(),
        seed: guest.seed,
        life: guest.life,
        tolerance: Tolerance::Nothing,
        tasks: false,
        blob_bytes: 40_000,
    };
    let clients = Clients::begin(&load, &notes)?;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let operations = clients.course.operations.load(Ordering::Relaxed);
        let mut lines = format!("@O {operations}\n");
        let mut found = clients.course.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.extend(found.drain(..).map(|violation| format!("@V {violation}\n")));
        drop(found);
        tell(&lines);
    }
}
