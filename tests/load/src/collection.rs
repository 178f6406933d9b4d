//! A collection of many blobs' records, and what writers feel of it.
//!
//! A tenth of the records has files of its own, in a namespace each of whose blobs a lease holds; nine more namespaces have
//! the same blobs without data of their own. The leases are deleted, the last one in sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_api::containerd::services::containers::v1 as containers;
use gantry_api::containerd::services::content::v1 as content;
use gantry_api::containerd::services::leases::v1 as leases;
use gantry_testkit::sha256;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::containers::{container, spread};
use crate::figures::{Table, percentile};
use crate::side::{CLIENTS, Side, call};
use crate::{Result, Sizes};

const NAMESPACES: usize = 10;
const LEASE: &str = "holds-all";
/// The namespace of the writer that feels the collection.
const WRITER: &str = "writer";
/// How long the writer writes before the collection, for comparison.
const QUIET: Duration = Duration::from_secs(2);

type ContentClient = content::content_client::ContentClient<Channel>;

fn namespace(number: usize) -> String {
    format!("blobs{number}")
}

/// Commits the blob `number`, whose data only the first namespace has to send.
async fn write(mut client: ContentClient, namespace: String, number: usize, with_data: bool) -> Result<()> {
    let data = format!("blob {number}").into_bytes();
    let message = content::WriteContentRequest {
        r#ref: format!("ref {number}"),
        total: i64::try_from(data.len()).unwrap_or_default(),
        expected: sha256(&data),
        ..Default::default()
    };
    let commit = content::WriteContentRequest {
        action: content::WriteAction::Commit.into(),
        offset: if with_data { 0 } else { message.total },
        data: if with_data { data } else { Vec::new() }.into(),
        ..message.clone()
    };
    let messages = if with_data { vec![commit] } else { vec![message, commit] };
    let request = call(&namespace, LEASE, tokio_stream::iter(messages))?;
    let failed = |status: tonic::Status| format!("blob {number} in {namespace}: {status}");
    let mut answers = client.write(request).await.map_err(failed)?.into_inner();
    while let Some(answer) = answers.next().await {
        answer.map_err(failed)?;
    }
    Ok(())
}

async fn fill(side: &Side, blobs: usize) -> Result<()> {
    for number in 0..NAMESPACES {
        let request = leases::CreateRequest { id: LEASE.to_owned(), ..Default::default() };
        let request = call(&namespace(number), "", request)?;
        side.leases(0).create(request).await.map_err(|status| status.to_string())?;
        let clients: Vec<_> = (0..CLIENTS).map(|client| side.content(client)).collect();
        let one =
            move |client: usize, blob| write(clients[client].clone(), namespace(number), blob, number == 0);
        spread(CLIENTS, blobs, one).await?;
    }
    Ok(())
}

/// How many blobs all namespaces have together.
async fn count(side: &Side) -> Result<usize> {
    let mut all = 0;
    for number in 0..NAMESPACES {
        let request = call(&namespace(number), "", content::ListContentRequest::default())?;
        let answer = side.content(0).list(request).await.map_err(|status| status.to_string())?;
        let mut messages = answer.into_inner();
        while let Some(message) = messages.next().await {
            all += message.map_err(|status| status.to_string())?.info.len();
        }
    }
    Ok(all)
}

/// Creates and deletes a container over and over.
struct Writer {
    jobs: JoinSet<Result<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    fn start(side: &Side) -> Writer {
        let (mut jobs, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        let (mut client, stopped) = (side.containers(1), Arc::clone(&stop));
        jobs.spawn(async move {
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let request = containers::CreateContainerRequest { container: Some(container("writer", 0)) };
                client.create(call(WRITER, "", request)?).await.map_err(|status| status.to_string())?;
                took.push(begun.elapsed());
                let begun = Instant::now();
                let request = containers::DeleteContainerRequest { id: "writer".to_owned() };
                client.delete(call(WRITER, "", request)?).await.map_err(|status| status.to_string())?;
                took.push(begun.elapsed());
            }
            Ok(took)
        });
        Writer { jobs, stop }
    }

    /// Ends it, and gives what each call took.
    async fn end(mut self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.jobs.join_next().await {
            Some(Ok(took)) => took,
            _ => Err("the writer ended early".to_owned()),
        }
    }
}

struct Collected {
    took: Duration,
    /// Of the writer's calls before.
    quiet: Vec<Duration>,
    /// Of those beside the collection.
    beside: Vec<Duration>,
}

async fn one(side: &Side, blobs: usize) -> Result<Collected> {
    let writer = Writer::start(side);
    tokio::time::sleep(QUIET).await;
    let quiet = writer.end().await?;
    let before = count(side).await?;
    if before != blobs {
        return Err(format!("{}: {before} blobs before the collection, not {blobs}", side.name));
    }
    let writer = Writer::start(side);
    let begun = Instant::now();
    for number in 0..NAMESPACES {
        let sync = number + 1 == NAMESPACES;
        let request = leases::DeleteRequest { id: LEASE.to_owned(), sync };
        let request = call(&namespace(number), "", request)?;
        side.leases(0).delete(request).await.map_err(|status| status.to_string())?;
    }
    let took = begun.elapsed();
    let beside = writer.end().await?;
    let left = count(side).await?;
    if left != 0 {
        return Err(format!("{}: {left} blobs are left after the collection", side.name));
    }
    Ok(Collected { took, quiet, beside })
}

/// Fills both with blobs and collects them, one side after the other.
pub(crate) async fn collect(sides: &[Side; 2], sizes: &Sizes, table: &mut Table) -> Result<()> {
    let each = sizes.blobs / NAMESPACES;
    let all = each * NAMESPACES;
    let mut filled = [Duration::ZERO; 2];
    for (at, side) in sides.iter().enumerate() {
        let begun = Instant::now();
        fill(side, each).await?;
        filled[at] = begun.elapsed();
    }
    table.time(&format!("{all} blobs' records by 16 clients"), filled);
    table.memory(&format!("with {all} blobs"), sides).await?;
    let both = [one(&sides[0], all).await?, one(&sides[1], all).await?];
    table.time(&format!("collection of {all} blobs' records"), both.each_ref().map(|one| one.took));
    let most = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    table.time("a writer's call, quiet, median", both.each_ref().map(|one| percentile(&one.quiet, 50)));
    table.time("a writer's call, quiet, the longest", both.each_ref().map(|one| most(&one.quiet)));
    table.time(
        "a writer's call, while collecting, median",
        both.each_ref().map(|one| percentile(&one.beside, 50)),
    );
    table
        .time("a writer's call, while collecting, the longest", both.each_ref().map(|one| most(&one.beside)));
    Ok(())
}
