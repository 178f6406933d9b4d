//! `gantry images`.

use clap::Args;
use gantry_client::Client;
use gantry_oci::PlatformMatcher;
use indicatif::HumanBytes;

use crate::failure::Result;
use crate::output::{self, Table};

/// What `images` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Show only names
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Show only images that one of these matches, for example name~=debian
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let images = client.images(&flags.filters).await?;
    if flags.quiet {
        for image in &images {
            output::line(image.name())?;
        }
        return Ok(0);
    }
    let platform = PlatformMatcher::host();
    let mut table = Table::new(&["NAME", "DIGEST", "SIZE", "UPDATED"]);
    for image in &images {
        // An image for another platform, or one that is half there, is in the list all the same.
        let size = image.size_bytes(&platform).await;
        let size = size.map(|size| HumanBytes(size).to_string()).unwrap_or_default();
        let updated = output::seconds(image.record().updated_at);
        table.row(vec![image.name().to_owned(), image.digest().to_string(), size, updated]);
    }
    table.print()?;
    Ok(0)
}
