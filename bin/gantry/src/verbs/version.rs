//! `gantry version`.

use clap::Args;
use gantry_core::{Context, ResultExt as _};

use crate::arguments::Global;
use crate::failure::Result;
use crate::output;
use crate::verbs::connect;

/// What `version` takes.
#[derive(Args)]
pub(crate) struct Flags {}

/// Says what it knows of itself even if no daemon can be asked.
pub(crate) async fn run(global: &Global, _: &Flags) -> Result<i32> {
    output::line(format!("Client:\n  Version:  {}\n", env!("CARGO_PKG_VERSION")))?;
    let client = connect(global).await?;
    let daemon = client.version().await?;
    let server = client.services().introspection.server(&Context::background()).await;
    let uuid = server.context("ask the daemon who it is")?.uuid;
    let (version, revision) = (daemon.version, daemon.revision);
    output::line(format!("Server:\n  Version:  {version}\n  Revision: {revision}\n  UUID:     {uuid}"))?;
    Ok(0)
}
