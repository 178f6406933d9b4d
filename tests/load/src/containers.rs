//! Calls on containers: created, asked for, listed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gantry_api::Any;
use gantry_api::containerd::services::containers::v1 as pb;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::figures::{Table, median, percentile};
use crate::side::{CLIENTS, Side, call};
use crate::{Result, Sizes, raw};

/// The namespace of the large store.
pub(crate) const LARGE: &str = "large";
/// The namespace of what is created and deleted again.
const SCRATCH: &str = "scratch";
/// One of so many containers has the label of the filtered list.
const MARKED: usize = 100;
/// About what a specification without its masked paths takes.
const SPEC_BYTES: usize = 1000;

/// The container `name`, the `number`th.
pub(crate) fn container(name: &str, number: usize) -> pb::Container {
    let label = |key: &str, value: String| (key.to_owned(), value);
    pb::Container {
        id: name.to_owned(),
        labels: HashMap::from([
            label("io.kubernetes.pod.name", format!("pod-{number}")),
            label("io.kubernetes.pod.namespace", "default".to_owned()),
            label("marked", if number.is_multiple_of(MARKED) { "yes" } else { "no" }.to_owned()),
        ])
        .into_iter()
        .collect(),
        image: "docker.io/library/debian:latest".to_owned(),
        runtime: Some(pb::container::Runtime { name: "io.containerd.runc.v2".to_owned(), options: None }),
        spec: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
            value: vec![b'x'; SPEC_BYTES],
        }),
        snapshotter: "overlayfs".to_owned(),
        snapshot_key: name.to_owned(),
        ..Default::default()
    }
}

/// Calls `one` `count` times from `clients` clients, each with its own connection; gives what each call took.
pub(crate) async fn spread<F, W>(clients: usize, count: usize, one: F) -> Result<(Duration, Vec<Duration>)>
where
    F: Fn(usize, usize) -> W + Clone + Send + 'static,
    W: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for client in 0..clients {
        let one = one.clone();
        all.spawn(async move {
            let mut took = Vec::new();
            for number in (client..count).step_by(clients) {
                let begun = Instant::now();
                one(client, number).await?;
                took.push(begun.elapsed());
            }
            Ok::<_, String>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(client) = all.join_next().await {
        took.extend(client.map_err(|error| error.to_string())??);
    }
    Ok((begun.elapsed(), took))
}

type Client = pb::containers_client::ContainersClient<Channel>;

/// As [`spread`], of calls on containers.
async fn ask<F, W>(side: &Side, clients: usize, count: usize, one: F) -> Result<(Duration, Vec<Duration>)>
where
    F: Fn(Client, usize) -> W + Clone + Send + 'static,
    W: Future<Output = Result<(), Status>> + Send,
{
    let connections: Vec<_> = (0..CLIENTS).map(|client| side.containers(client)).collect();
    spread(clients, count, move |client, number| {
        let asked = one(connections[client].clone(), number);
        async move { asked.await.map_err(|status| status.to_string()) }
    })
    .await
}

/// Creates containers `first..first + count` in `namespace`.
pub(crate) async fn create(
    side: &Side,
    namespace: &'static str,
    clients: usize,
    first: usize,
    count: usize,
) -> Result<(Duration, Vec<Duration>)> {
    ask(side, clients, count, move |mut client, number| async move {
        let container = Some(container(&name(first + number), first + number));
        client.create(within(namespace, pb::CreateContainerRequest { container })?).await.map(drop)
    })
    .await
}

/// Deletes them.
pub(crate) async fn delete(
    side: &Side,
    namespace: &'static str,
    clients: usize,
    first: usize,
    count: usize,
) -> Result<(Duration, Vec<Duration>)> {
    ask(side, clients, count, move |mut client, number| async move {
        let id = name(first + number);
        client.delete(within(namespace, pb::DeleteContainerRequest { id })?).await.map(drop)
    })
    .await
}

/// Asks for containers of `namespace`, of which there are `stored`.
pub(crate) async fn get(
    side: &Side,
    namespace: &'static str,
    clients: usize,
    stored: usize,
    count: usize,
) -> Result<(Duration, Vec<Duration>)> {
    ask(side, clients, count, move |mut client, number| async move {
        // A prime step visits all parts of the store.
        let id = name(number * 7919 % stored);
        client.get(within(namespace, pb::GetContainerRequest { id })?).await.map(drop)
    })
    .await
}

fn name(number: usize) -> String {
    format!("c{number:06}")
}

fn within<T>(namespace: &str, message: T) -> Result<Request<T>, Status> {
    call(namespace, "", message).map_err(Status::invalid_argument)
}

fn per_second(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// `Version`, and durable creates and deletes, by one client and by many.
pub(crate) async fn calls(sides: &[Side; 2], sizes: &Sizes, table: &mut Table) -> Result<()> {
    let (mut rates, mut tails, mut costs) =
        ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..sizes.rounds {
        for (at, side) in sides.iter().enumerate() {
            let each = 2000;
            let (address, method) =
                (side.daemon.address(), "/containerd.services.version.v1.Version/Version");
            let asked = tokio::task::spawn_blocking(move || raw::spread(&address, method, CLIENTS, each));
            let cpu = side.cpu()?;
            let (whole, took) = asked.await.map_err(|error| error.to_string())??;
            costs[at].push(side.cpu()?.saturating_sub(cpu) / u32::try_from(took.len()).unwrap_or(1));
            rates[at].push(per_second(took.len(), whole));
            tails[at].push(percentile(&took, 99));
        }
    }
    table.add("Version, 16 clients", "/s", rates.map(|rates| median(&rates)));
    table.time("Version, 16 clients, 99th percentile", tails.map(|tails| median(&tails)));
    table.time("Version, CPU of the daemon for a call", costs.map(|costs| median(&costs)));
    for (clients, count) in [(1, 500), (CLIENTS, 4000)] {
        let mut created = [Vec::new(), Vec::new()];
        let mut latency = [Vec::new(), Vec::new()];
        let mut deleted = [Vec::new(), Vec::new()];
        for _ in 0..sizes.rounds {
            for (at, side) in sides.iter().enumerate() {
                let (whole, each) = create(side, SCRATCH, clients, 0, count).await?;
                created[at].push(per_second(count, whole));
                latency[at].push(percentile(&each, 50));
                let (whole, _) = delete(side, SCRATCH, clients, 0, count).await?;
                deleted[at].push(per_second(count, whole));
            }
        }
        let who = if clients == 1 { "1 client" } else { "16 clients" };
        table.add(&format!("Containers.Create, durable, {who}"), "/s", created.map(|rates| median(&rates)));
        table.time(&format!("Containers.Create, {who}, median"), latency.map(|times| median(&times)));
        table.add(&format!("Containers.Delete, durable, {who}"), "/s", deleted.map(|rates| median(&rates)));
    }
    Ok(())
}

/// How a list is asked for.
#[derive(Clone, Copy)]
enum Way {
    Unary,
    Stream,
}

/// How many containers a list has.
async fn list(side: &Side, way: Way, filter: &str) -> Result<usize> {
    let filters = if filter.is_empty() { Vec::new() } else { vec![filter.to_owned()] };
    let request = call(LARGE, "", pb::ListContainersRequest { filters })?;
    let mut client = side.containers(0);
    match way {
        Way::Unary => {
            let answer = client.list(request).await.map_err(|status| status.to_string())?;
            Ok(answer.into_inner().containers.len())
        }
        Way::Stream => {
            let answer = client.list_stream(request).await.map_err(|status| status.to_string())?;
            let (mut messages, mut count) = (answer.into_inner(), 0);
            while let Some(message) = messages.next().await {
                count += usize::from(message.map_err(|status| status.to_string())?.container.is_some());
            }
            Ok(count)
        }
    }
}

/// Gets and lists of the large store.
pub(crate) async fn lists(sides: &[Side; 2], sizes: &Sizes, table: &mut Table) -> Result<()> {
    for (clients, count) in [(1, 2000), (CLIENTS, 10_000)] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..sizes.rounds {
            for (at, side) in sides.iter().enumerate() {
                let (whole, _) = get(side, LARGE, clients, sizes.containers, count).await?;
                rates[at].push(per_second(count, whole));
            }
        }
        let who = if clients == 1 { "1 client" } else { "16 clients" };
        let what = format!("Containers.Get of {}, {who}", sizes.containers);
        table.add(&what, "/s", rates.map(|rates| median(&rates)));
    }
    let all = sizes.containers;
    let marked = all.div_ceil(MARKED);
    let rows = [
        ("unary", Way::Unary, "", all),
        ("stream", Way::Stream, "", all),
        ("filtered by a label, stream", Way::Stream, "labels.marked==yes", marked),
        ("filtered by a regular expression, stream", Way::Stream, "id~=^c0000[0-4]", 50),
        ("filtered by id, stream", Way::Stream, "id==c000007", 1),
    ];
    for (what, way, filter, expected) in rows {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..sizes.rounds {
            for (at, side) in sides.iter().enumerate() {
                let begun = Instant::now();
                let count = list(side, way, filter).await?;
                times[at].push(begun.elapsed());
                if count != expected {
                    return Err(format!("{}: list, {what}: {count} containers, not {expected}", side.name));
                }
            }
        }
        table.time(&format!("list of {all}, {what}"), times.map(|times| median(&times)));
    }
    Ok(())
}
