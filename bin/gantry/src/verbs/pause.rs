//! `gantry pause` and `gantry resume`.

use clap::Args;
use gantry_client::Client;

use crate::failure::{Failures, Result};
use crate::output;
use crate::verbs::{container, task};

/// What `pause` and `resume` take.
#[derive(Args)]
pub(crate) struct Flags {
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// Freezes containers.
pub(crate) async fn pause(client: &Client, flags: Flags) -> Result<i32> {
    each(client, flags, true).await
}

/// Thaws containers.
pub(crate) async fn resume(client: &Client, flags: Flags) -> Result<i32> {
    each(client, flags, false).await
}

async fn each(client: &Client, flags: Flags, freeze: bool) -> Result<i32> {
    let mut failures = Failures::default();
    for id in &flags.ids {
        failures.note(one(client, id, freeze).await);
    }
    failures.finish()
}

async fn one(client: &Client, id: &str, freeze: bool) -> Result<()> {
    let task = task(&container(client, id).await?).await?;
    if freeze {
        task.pause().await?
    } else {
        task.resume().await?
    }
    Ok(output::line(id)?)
}
