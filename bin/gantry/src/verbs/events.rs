//! `gantry events`.

use clap::Args;
use futures_util::StreamExt as _;
use gantry_client::Client;
use gantry_core::ResultExt as _;

use crate::event_json;
use crate::failure::Result;
use crate::output;

/// What `events` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Show only events that one of these matches, for example topic~=/tasks/
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Prints a line for each event: time, namespace, topic, and its fields as JSON. Ends with the daemon.
pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let mut events = client
        .services()
        .events
        .subscribe(&client.context(), &flags.filters)
        .await
        .context("subscribe to events")?;
    while let Some(event) = events.next().await {
        let event = event.context("receive events")?;
        let namespace = if event.namespace.is_empty() { "-" } else { &event.namespace };
        let (time, fields) = (output::exactly(event.timestamp), event_json::payload(&event.payload));
        output::line(format!("{time} {namespace} {} {fields}", event.topic))?;
    }
    Ok(0)
}
