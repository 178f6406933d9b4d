//! `gantry gc`: who keeps what, what would go, and collecting now.

mod explanation;

use clap::{Args, Subcommand};
use futures_util::TryStreamExt as _;
use gantry_client::Client;
use gantry_core::leases::LeaseManager;
use gantry_core::maintenance::{Doomed, ObjectKind, ObjectName};
use gantry_core::{Context, ErrorKind, Labels, ResultExt as _};
use indicatif::HumanBytes;

use crate::failure::{Advise as _, Result};
use crate::output::{self, Table};
use crate::pulling::stored_image;
use crate::verbs::only_gantryd;

/// What `gc` can do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Say who keeps an object, up to each root, and what would let it go
    Explain(Explain),
    /// Show what the next collection would take away, and how much room that makes
    Preview(Preview),
    /// Collect garbage now
    Run,
}

/// What `gc explain` takes.
#[derive(Args)]
pub(crate) struct Explain {
    /// content, image, container, snapshot, lease, ingest or sandbox
    #[arg(value_parser = kind)]
    pub(crate) kind: ObjectKind,
    /// A digest, a name, a snapshot's key or an ingest's ref
    name: String,
    /// The snapshotter of a snapshot; the namespace's default if absent
    #[arg(long, env = "CONTAINERD_SNAPSHOTTER", value_name = "NAME")]
    snapshotter: Option<String>,
}

/// What `gc preview` takes.
#[derive(Args)]
pub(crate) struct Preview {
    /// In all namespaces, and files that no namespace has
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

fn kind(text: &str) -> Result<ObjectKind, String> {
    ObjectKind::parse(text).map_err(|error| error.to_string())
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<i32> {
    match verb {
        Verb::Explain(flags) => explain(client, flags).await,
        Verb::Preview(flags) => preview(client, flags).await,
        Verb::Run => collect(client).await,
    }
}

async fn explain(client: &Client, flags: Explain) -> Result<i32> {
    let mut object = ObjectName {
        kind: flags.kind,
        namespace: client.namespace().to_string(),
        snapshotter: String::new(),
        name: flags.name,
    };
    if object.kind == ObjectKind::Snapshot {
        object.snapshotter = client.snapshotter_name(flags.snapshotter.as_deref()).await?;
    }
    if object.kind == ObjectKind::Image
        && let Ok(image) = stored_image(client, &object.name).await
    {
        // A short name will do.
        object.name = image.name().to_owned();
    }
    let explained = client.services().maintenance.explain(&client.context(), &object).await;
    let explained =
        only_gantryd(explained.context("ask who keeps it")).advise(ErrorKind::NotFound, || {
            format!(
                "there is none of that name in namespace {}; another is chosen with -n",
                client.namespace()
            )
        })?;
    for line in explanation::lines(&explained, client.namespace().as_str()) {
        output::line(line)?;
    }
    Ok(0)
}

async fn preview(client: &Client, flags: Preview) -> Result<i32> {
    let cx = if flags.all_namespaces { Context::background() } else { client.context() };
    let doomed = client.services().maintenance.preview(&cx).await;
    let mut doomed = only_gantryd(doomed.context("ask what would go"))?;
    let mut table = Table::new(&["NAMESPACE", "KIND", "NAME", "SIZE", "FREES", "WHY"]);
    let (mut count, mut freed) = (0_u64, 0_u64);
    while let Some(one) = only_gantryd(doomed.try_next().await.context("ask what would go"))? {
        count += 1;
        freed = freed.saturating_add(one.freed_bytes);
        table.row(row(one));
    }
    if count == 0 {
        output::line("nothing: everything is kept")?;
        return Ok(0);
    }
    table.print()?;
    output::line(format!("{count} objects; {} would be free", HumanBytes(freed)))?;
    Ok(0)
}

fn row(doomed: Doomed) -> Vec<String> {
    let size = doomed.size_bytes.map(|size| HumanBytes(size).to_string()).unwrap_or_default();
    let frees =
        if doomed.freed_bytes > 0 { HumanBytes(doomed.freed_bytes).to_string() } else { String::new() };
    let object = doomed.object;
    let kind = match object.snapshotter.as_str() {
        "" => object.kind.to_string(),
        snapshotter => format!("{} ({snapshotter})", object.kind),
    };
    vec![object.namespace, kind, object.name, size, frees, doomed.why.as_str().to_owned()]
}

async fn collect(client: &Client) -> Result<i32> {
    match client.services().maintenance.collect(&Context::background()).await {
        // containerd has no such call, but collects for whoever ends a lease and waits.
        Err(error) if error.kind() == ErrorKind::Unimplemented => {
            let leases: &dyn LeaseManager = client.services().leases.as_ref();
            let cx = client.context();
            let lease = leases.create(&cx, None, Labels::new()).await.context("make a lease")?;
            leases.delete(&cx, &lease.id, true).await.context("end a lease and collect")?;
            output::line("collected")?;
        }
        collected => {
            let done = collected.context("collect")?;
            output::line(format!(
                "collected in {} ms: {} blobs, {} snapshots, {} images, {} leases, {} writes in progress",
                done.elapsed.as_millis(),
                done.blobs,
                done.snapshots,
                done.images,
                done.leases,
                done.ingests
            ))?;
        }
    }
    Ok(0)
}
