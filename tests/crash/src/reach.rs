//! Which failpoints a load passes that nobody kills.

use std::path::Path;
use std::time::{Duration, Instant};

use gantry_core::{Error, Result, ResultExt as _};
use gantry_failpoint::Point;

use crate::daemon::Lives;
use crate::load::{Load, Tolerance};
use crate::rounds::Clients;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(90);

/// Works on a root through starts, stops and new boots until every failpoint was passed; prints the names of those that were.
///
/// # Errors
/// Those of the test itself.
pub(crate) async fn reach(dir: &Path) -> Result<bool> {
    let trace = dir.join("trace");
    let mut lives = Lives::new(&dir.join("root"), None);
    let notes = std::sync::Arc::default();
    let end = Instant::now() + gantry_testkit::scaled(LIMIT);
    let mut passed = Vec::new();
    for boot in 0.. {
        lives.boot = Some(boot);
        if !lives.start(&format!("trace={}", trace.display())).await? {
            return Err(Error::internal("gantryd does not start"));
        }
        let load = Load {
            address: lives.address(),
            seed: boot,
            life: boot,
            tolerance: Tolerance::Nothing,
            tasks: false,
            blob_bytes: 10_000,
        };
        let clients = Clients::begin(&load, &notes)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        clients.course.enough.store(true, std::sync::atomic::Ordering::SeqCst);
        clients.finish().await?;
        // Every other time without a stop, so that what is not synced is rebuilt in the next boot.
        if boot % 2 == 0 {
            lives.kill(&std::sync::Arc::default())?;
        } else {
            lives.terminate()?;
            lives.wait(Duration::from_secs(20)).await?;
        }
        let text = std::fs::read_to_string(&trace).context("read the trace")?;
        passed = text.lines().map(str::to_owned).collect();
        passed.sort();
        passed.dedup();
        if passed.len() == Point::ALL.len() || Instant::now() > end {
            break;
        }
    }
    println!("{}", passed.join("\n"));
    Ok(passed.len() == Point::ALL.len())
}
