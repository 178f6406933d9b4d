//! `gantry rm`.

use clap::Args;
use gantry_client::{Client, Container, DeleteContainer};
use gantry_core::tasks::TaskStatus;
use gantry_core::{Error, ErrorKind};

use crate::failure::{Failure, Failures, Result};
use crate::verbs::container;
use crate::{log_file, output};

/// What `rm` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// End what runs in them
    #[arg(long, short = 'f')]
    force: bool,
    /// Keep their snapshots
    #[arg(long)]
    keep_snapshot: bool,
    /// The containers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let mut failures = Failures::default();
    for id in &flags.ids {
        failures.note(remove(client, id, &flags).await);
    }
    failures.finish()
}

async fn remove(client: &Client, id: &str, flags: &Flags) -> Result<()> {
    let container = container(client, id).await?;
    if !flags.force {
        refuse_running(&container).await?;
    }
    remove_all(&container, !flags.keep_snapshot).await?;
    Ok(output::line(id)?)
}

async fn refuse_running(container: &Container) -> Result<()> {
    let state = match container.task().await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        task => task?.status().await?,
    };
    if matches!(state.status, TaskStatus::Stopped | TaskStatus::Created) {
        return Ok(());
    }
    let id = container.id();
    let error = Error::failed_precondition("its task still runs").context(format!("remove container {id:?}"));
    Err(Failure::from(error).hint(format!("gantry kill {id} ends it; gantry rm -f {id} ends and removes it")))
}

/// Removes a container with all that belongs to it: task, snapshot if `snapshot`, and log file. What is gone already
/// is no error.
///
/// # Errors
/// Everything that could not be removed.
pub(crate) async fn remove_all(container: &Container, snapshot: bool) -> Result<()> {
    let mut failures = Failures::default();
    let gone = |error: &Error| error.kind() == ErrorKind::NotFound;
    let labels = match container.info().await {
        Ok(record) => record.labels,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match container.task().await {
        Err(error) if gone(&error) => {}
        Err(error) => return Err(error.into()),
        Ok(task) => match task.kill_and_delete().await {
            Err(error) if !gone(&error) => {
                failures.note::<()>(Err(error.into()));
            }
            _ => {}
        },
    }
    match container.delete(DeleteContainer { snapshot }).await {
        Err(error) if !gone(&error) => {
            failures.note::<()>(Err(error.into()));
        }
        _ => {
            let removed = log_file::remove(container.client(), container.id().as_str(), &labels).await;
            failures.note(removed.map_err(Failure::from));
        }
    }
    failures.finish().map(|_| ())
}
