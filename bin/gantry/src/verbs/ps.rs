//! `gantry ps`.

use std::collections::BTreeMap;

use clap::Args;
use futures_util::TryStreamExt as _;
use gantry_client::Client;
use gantry_core::ResultExt as _;
use gantry_core::tasks::{ProcessRecord, TaskStatus};

use crate::failure::Result;
use crate::output::{self, Table};

/// What `ps` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Show only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Show only containers that one of these matches, for example labels.tier==web
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let cx = client.context();
    let step = "list containers";
    let containers = client.services().containers.list(&cx, &flags.filters).await.context(step)?;
    let containers: Vec<_> = containers.try_collect().await.context(step)?;
    if flags.quiet {
        for container in &containers {
            output::line(&container.id)?;
        }
        return Ok(0);
    }
    let tasks = client.services().tasks.list(&cx).await.context("list tasks")?;
    let tasks: BTreeMap<&str, &ProcessRecord> = tasks.iter().map(|task| (task.id.as_str(), task)).collect();
    let mut table = Table::new(&["ID", "STATUS", "PID", "IMAGE", "RUNTIME", "CREATED"]);
    for container in &containers {
        let task = tasks.get(container.id.as_str()).copied();
        table.row(vec![
            container.id.to_string(),
            task.map_or_else(|| "no task".to_owned(), status),
            task.filter(|task| task.pid > 0).map(|task| task.pid.to_string()).unwrap_or_default(),
            container.image.clone(),
            container.runtime.name.clone(),
            output::seconds(container.created_at),
        ]);
    }
    table.print()?;
    Ok(0)
}

/// A task's state, as a person calls it.
pub(crate) fn status(task: &ProcessRecord) -> String {
    match task.status {
        TaskStatus::Unknown => "unknown".to_owned(),
        TaskStatus::Created => "created".to_owned(),
        TaskStatus::Running => "running".to_owned(),
        TaskStatus::Stopped => format!("stopped ({})", task.exit_status),
        TaskStatus::Paused => "paused".to_owned(),
        TaskStatus::Pausing => "pausing".to_owned(),
    }
}
