//! `gantry pull`.

use clap::Args;
use gantry_client::Client;
use gantry_registry::Credentials;

use crate::failure::Result;
use crate::output;
use crate::progress::Lines;
use crate::pulling::{Pulling, RegistryFlags};
use crate::signals::Signals;
use crate::values::pairs;

/// What `pull` takes.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    registry: RegistryFlags,
    /// Who asks the registry, as NAME:SECRET; otherwise what docker login noted counts
    #[arg(long, short = 'u', value_parser = pairs::credentials, value_name = "NAME:SECRET")]
    user: Option<Credentials>,
    /// Fetch the image without unpacking it
    #[arg(long)]
    no_unpack: bool,
    /// The image; debian is short for docker.io/library/debian:latest
    #[arg(value_name = "IMAGE")]
    reference: String,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let mut signals = Signals::take()?;
    let pulling = Pulling {
        client,
        registry: &flags.registry,
        user: flags.user,
        unpack: !flags.no_unpack,
        lines: Lines::Stdout,
    };
    let image = pulling.pull(&flags.reference, &mut signals).await?;
    output::line(format!("pulled {} {}", image.name(), image.digest()))?;
    Ok(0)
}
