//! `gantry inspect`.

use clap::Args;
use gantry_client::Client;
use gantry_core::ErrorKind;
use serde_json::{Value, json};

use crate::failure::Result;
use crate::output;
use crate::verbs::{container, ps};

/// What `inspect` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// The container
    id: String,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let container = container(client, &flags.id).await?;
    let record = container.info().await?;
    let spec: Value =
        record.spec.as_ref().and_then(|spec| serde_json::from_slice(&spec.value).ok()).unwrap_or_default();
    let task = match container.task().await {
        Err(error) if error.kind() == ErrorKind::NotFound => Value::Null,
        task => {
            let state = task?.status().await?;
            json!({ "pid": state.pid, "status": ps::status(&state) })
        }
    };
    let shown = json!({
        "id": record.id.as_str(),
        "image": record.image,
        "labels": record.labels,
        "runtime": record.runtime.name,
        "snapshotter": record.snapshotter,
        "snapshot_key": record.snapshot_key,
        "created_at": output::exactly(record.created_at),
        "updated_at": output::exactly(record.updated_at),
        "task": task,
        "spec": spec,
    });
    output::line(format!("{shown:#}"))?;
    Ok(0)
}
