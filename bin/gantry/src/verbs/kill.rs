//! `gantry kill`.

use std::time::Duration;

use clap::Args;
use gantry_client::Client;
use gantry_core::Error;

use crate::failure::{Failures, Result};
use crate::output;
use crate::values::signal_names::{self, KILL};
use crate::verbs::{container, task};

/// How long a killed process may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What `kill` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// The signal, by name or number. After KILL, which nothing can catch, this waits for the end
    #[arg(long, short = 's', default_value = "KILL", value_parser = signal_names::signal)]
    signal: u32,
    /// To every process of the container, not only the first
    #[arg(long)]
    all: bool,
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let mut failures = Failures::default();
    for id in &flags.ids {
        failures.note(kill(client, id, &flags).await);
    }
    failures.finish()
}

async fn kill(client: &Client, id: &str, flags: &Flags) -> Result<()> {
    let task = task(&container(client, id).await?).await?;
    task.kill(flags.signal, flags.all).await?;
    if flags.signal == KILL {
        match tokio::time::timeout(ENDS_WITHIN, task.wait()).await {
            Ok(ended) => ended?,
            Err(_) => {
                let why = format!("kill {id:?}: it did not end within {} s", ENDS_WITHIN.as_secs());
                return Err(Error::deadline_exceeded(why).into());
            }
        };
    }
    Ok(output::line(id)?)
}
