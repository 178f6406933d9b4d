//! `gantry rmi`.

use clap::Args;
use gantry_client::Client;
use gantry_core::images::DeleteImage;
use gantry_core::{ErrorKind, ResultExt as _};

use crate::failure::{Advise as _, Failures, Result};
use crate::output;
use crate::pulling::stored_image;

/// What `rmi` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Do not wait until the content is gone as well
    #[arg(long = "async")]
    no_wait: bool,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let mut failures = Failures::default();
    for name in &flags.names {
        failures.note(remove(client, name, !flags.no_wait).await);
    }
    failures.finish()
}

async fn remove(client: &Client, text: &str, sync: bool) -> Result<()> {
    let image = stored_image(client, text).await;
    let image = image.advise(ErrorKind::NotFound, || "gantry images lists them".to_owned())?;
    let how = DeleteImage { sync, ..DeleteImage::default() };
    let deleted = client.services().images.delete(&client.context(), image.name(), how).await;
    deleted.with_context(|| format!("remove image {:?}", image.name()))?;
    Ok(output::line(image.name())?)
}
