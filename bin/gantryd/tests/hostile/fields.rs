//! Every field of every method, absent, hollow, too long, of another kind, a hundred thousand times.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gantry_testkit::{root, scaled};

use crate::schema::{Method, Schema};
use crate::tricks::tricks;
use crate::watched::Watched;
use crate::wire::{Answer, BOUND, Client, INTERNAL, OK, UNIMPLEMENTED};

/// Methods that answer when something happens: they are left after this time, which is no failure.
const WAITING: &[&str] = &["/containerd.services.events.v1.Events/Subscribe", "/grpc.health.v1.Health/Watch"];
const A_MOMENT: Duration = Duration::from_millis(100);

macro_rules! services {
    ($($name:ident: $service:literal;)*) => {
        /// Every service with a test of its own below.
        const SERVICES: &[&str] = &[$($service),*];

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            root!();
            play($service).await;
        })*
    };
}

services! {
    containers_take_any_field: "containerd.services.containers.v1.Containers";
    content_takes_any_field: "containerd.services.content.v1.Content";
    diffs_take_any_field: "containerd.services.diff.v1.Diff";
    events_take_any_field: "containerd.services.events.v1.Events";
    health_takes_any_field: "grpc.health.v1.Health";
    images_take_any_field: "containerd.services.images.v1.Images";
    introspection_takes_any_field: "containerd.services.introspection.v1.Introspection";
    leases_take_any_field: "containerd.services.leases.v1.Leases";
    mounts_take_any_field: "containerd.services.mounts.v1.Mounts";
    namespaces_take_any_field: "containerd.services.namespaces.v1.Namespaces";
    sandbox_controllers_take_any_field: "containerd.services.sandbox.v1.Controller";
    sandboxes_take_any_field: "containerd.services.sandbox.v1.Store";
    snapshots_take_any_field: "containerd.services.snapshots.v1.Snapshots";
    streaming_takes_any_field: "containerd.services.streaming.v1.Streaming";
    tasks_take_any_field: "containerd.services.tasks.v1.Tasks";
    transfers_take_any_field: "containerd.services.transfer.v1.Transfer";
    version_takes_any_field: "containerd.services.version.v1.Version";
    maintenance_takes_any_field: "gantry.services.maintenance.v1.Maintenance";
}

/// Services that are spoken over ttrpc: by shims, and to the daemon by shims (see `shims.rs`).
const OF_SHIMS: &[&str] = &[
    "containerd.runtime.sandbox.v1.Sandbox",
    "containerd.services.events.ttrpc.v1.Events",
    "containerd.task.v2.Task",
    "containerd.task.v3.Task",
];

#[test]
fn no_service_of_the_wire_is_forgotten() {
    let schema = Schema::read();
    let all: BTreeSet<&str> = schema.methods.iter().map(|method| method.service.as_str()).collect();
    let known: BTreeSet<&str> = SERVICES.iter().chain(OF_SHIMS).copied().collect();
    assert_eq!(all, known);
}

async fn play(service: &str) {
    let schema = Schema::read();
    let mut watched = Watched::start().await;
    let methods: Vec<_> = schema.methods.iter().filter(|method| method.service == service).collect();
    assert!(!methods.is_empty());
    for method in methods {
        let mut client = watched.client().await;
        let mut calls = 0;
        let usual = schema.usual(&method.input);
        let mut messages = vec![
            ("nothing at all".to_owned(), Vec::new(), false),
            ("the usual".to_owned(), usual.clone(), false),
        ];
        for cut in [1, usual.len() / 3, usual.len() / 2, usual.len().saturating_sub(1)] {
            // A cut between two fields is no cut.
            messages.push((format!("cut at {cut}"), usual[..cut.min(usual.len())].to_vec(), false));
        }
        messages.push(("a field without a number".to_owned(), vec![0], true));
        messages.push(("a number without end".to_owned(), vec![0xff; 11], true));
        for way in schema.places(&method.input) {
            let field = way.last().expect("a way leads somewhere");
            let names: Vec<_> = way.iter().map(|field| field.name.as_str()).collect();
            for trick in tricks(field) {
                let what = format!("{}: {}", names.join("."), trick.name);
                let among = schema.with(&method.input, &way, &trick.bytes);
                messages.push((format!("{what}, among the usual"), among, trick.unparsable));
                messages.push((format!("{what}, alone"), schema.only(&way, &trick.bytes), trick.unparsable));
            }
        }
        let begun = Instant::now();
        for (what, message, unparsable) in &messages {
            let what = format!("{}: {what}", method.path);
            let answer = ask(&mut client, &watched, method, message, &what).await;
            check(&what, &answer, *unparsable);
            calls += 1;
        }
        println!("{}: {calls} calls in {:?}", method.path, begun.elapsed());
        watched.assert_unharmed(&method.path).await;
    }
}

/// Asks, within a bound; methods that wait are left.
async fn ask(
    client: &mut Client,
    watched: &Watched,
    method: &Method,
    message: &[u8],
    what: &str,
) -> Option<Answer> {
    let waits = WAITING.contains(&method.path.as_str());
    let bound = if waits { A_MOMENT } else { scaled(BOUND) };
    let asking = tokio::time::timeout(bound, client.call(&method.path, message)).await;
    match asking {
        Ok(answer) => {
            if answer.code.is_none() {
                // Whatever the daemon thinks of the call, the next one has a connection.
                *client = watched.client().await;
            }
            Some(answer)
        }
        Err(_) if waits => None,
        Err(_) => panic!("{what}: no answer in {bound:?}"),
    }
}

#[track_caller]
fn check(what: &str, answer: &Option<Answer>, unparsable: bool) {
    let Some(answer) = answer else {
        assert!(!unparsable, "{what}: waits");
        return;
    };
    let code = answer.code.unwrap_or_else(|| panic!("{what}: no status: {answer:?}"));
    if code == UNIMPLEMENTED {
        return;
    }
    if unparsable {
        assert_eq!(code, INTERNAL, "{what}: {answer:?}");
        return;
    }
    // Neither a fault of ours nor of nobody. A cut message may or may not parse.
    let cut = what.contains(": cut at ");
    // UNAVAILABLE, CANCELLED, DATA_LOSS, ABORTED and UNAUTHENTICATED say nothing about a message.
    let wrong = [1, 10, 14, 15, 16].contains(&code) || (code == INTERNAL && !cut);
    assert!(!wrong, "{what}: {answer:?}");
    assert!(code == OK || !answer.message.is_empty(), "{what}: {answer:?} says nothing");
}
