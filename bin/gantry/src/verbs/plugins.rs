//! `gantry plugins`.

use clap::Args;
use gantry_client::Client;
use gantry_core::{Context, Error, ResultExt as _};

use crate::failure::Result;
use crate::output::Table;

/// What `plugins` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Show only plugins that one of these matches, for example type==io.containerd.snapshotter.v1
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let plugins = client.services().introspection.plugins(&Context::background(), &flags.filters).await;
    let mut table = Table::new(&["TYPE", "ID", "PLATFORMS", "STATUS"]);
    for plugin in plugins.context("list plugins")? {
        let platforms: Vec<String> = plugin.platforms.iter().map(ToString::to_string).collect();
        let status = plugin.init_error.as_ref().map_or_else(|| "ok".to_owned(), status);
        table.row(vec![plugin.kind, plugin.id, platforms.join(","), status]);
    }
    table.print()?;
    Ok(0)
}

/// A plugin that found that it is not needed says so at the end of its error.
///
/// Source: containerd's `plugin.ErrSkipPlugin`.
fn status(error: &Error) -> String {
    let text = error.to_string();
    match text.contains("skip plugin") {
        true => format!("skipped: {text}"),
        false => format!("error: {text}"),
    }
}
