//! Maintenance over the wire: whatever the one end says, the other end hears.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use gantry_core::maintenance::check::*;
use gantry_core::maintenance::*;
use gantry_core::{Context, Error, ErrorKind, ItemStream, Result};
use gantry_rpc::Services;
use gantry_rpc::maintenance::RemoteMaintenance;

use crate::support::{Daemon, cx};

/// Says one of everything, and remembers what it was asked.
#[derive(Default)]
struct FakeMaintenance(Mutex<Vec<String>>);

fn object(kind: ObjectKind, name: &str) -> ObjectName {
    ObjectName { kind, namespace: "n".into(), snapshotter: String::new(), name: name.into() }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn explanations() -> Vec<Explanation> {
    let label = || "containerd.io/gc.x".to_owned();
    let edges = [
        Edge::Target,
        Edge::RootFilesystem,
        Edge::Parent,
        Edge::LeaseResource,
        Edge::Expected,
        Edge::Label(label()),
        Edge::BackReference(label()),
        Edge::Condition(label()),
    ];
    let roots = [
        RootReason::Image,
        RootReason::Container,
        RootReason::Sandbox,
        RootReason::Lease(None),
        RootReason::Lease(Some(at(7))),
        RootReason::Label(label()),
        RootReason::Unexpired(at(8)),
        RootReason::Ingest(None),
        RootReason::Ingest(Some(at(9))),
    ];
    let chain = |root: &RootReason| Chain {
        holders: edges
            .iter()
            .map(|edge| Holder { object: object(ObjectKind::Snapshot, "s"), edge: edge.clone() })
            .collect(),
        omitted: 5,
        root: root.clone(),
    };
    let of = |fate, expired| Explanation {
        object: object(ObjectKind::Ingest, "r"),
        fate,
        chains: roots.iter().map(chain).collect(),
        more: 3,
        expired,
    };
    vec![of(Fate::Kept, None), of(Fate::Collected, Some(at(1))), of(Fate::Stays("because".into()), None)]
}

fn doomed() -> Vec<Doomed> {
    let whys = [Doom::Unreferenced, Doom::Expired, Doom::NoRecord];
    let of = |number: usize| Doomed {
        object: object(ObjectKind::ALL[number % 7], &number.to_string()),
        why: whys[number % 3],
        size_bytes: number.is_multiple_of(2).then_some(number as u64),
        freed_bytes: number as u64 / 2,
    };
    (0..250).map(of).collect()
}

fn events() -> Vec<CheckEvent> {
    let outcomes = [Outcome::Note, Outcome::Repairable, Outcome::Repaired, Outcome::Left];
    let mut events = vec![CheckEvent::Progress { step: "blobs".into(), done: 1, total: 2 }];
    events.extend(Problem::ALL.iter().enumerate().map(|(number, problem)| {
        CheckEvent::Finding(Finding {
            problem: *problem,
            object: number.is_multiple_of(2).then(|| object(ObjectKind::Content, "d")),
            path: "/p".into(),
            detail: number.to_string(),
            outcome: outcomes[number % 4],
            action: "act".into(),
        })
    }));
    events.push(CheckEvent::Summary(CheckSummary {
        blobs: 1,
        hashed_bytes: 2,
        ingests: 3,
        snapshots: 4,
        others: 5,
        notes: 6,
        repairable: 7,
        repaired: 8,
        left: 9,
    }));
    events
}

const COLLECTED: Collected =
    Collected { elapsed: Duration::from_micros(7), leases: 1, images: 2, blobs: 3, ingests: 4, snapshots: 5 };

#[async_trait]
impl Maintenance for FakeMaintenance {
    async fn explain(&self, cx: &Context, object: &ObjectName) -> Result<Explanation> {
        let place: usize = object.name.parse().map_err(|_| Error::not_found(object.to_string()))?;
        self.0.lock().unwrap().push(format!("{} {}", cx.namespace()?, object.kind));
        Ok(explanations().remove(place))
    }

    async fn preview(&self, cx: &Context) -> Result<ItemStream<Doomed>> {
        self.0.lock().unwrap().push(format!("{:?}", cx.namespace_if_any()));
        Ok(futures_util::stream::iter(doomed().into_iter().map(Ok)).boxed())
    }

    async fn collect(&self, _: &Context) -> Result<Collected> {
        Ok(COLLECTED)
    }

    async fn check(&self, _: &Context, options: CheckOptions) -> Result<ItemStream<CheckEvent>> {
        self.0.lock().unwrap().push(format!("{options:?}"));
        if options.deep && !options.repair {
            return Err(Error::unavailable("another check"));
        }
        Ok(futures_util::stream::iter(events().into_iter().map(Ok)).boxed())
    }
}

#[tokio::test]
async fn whatever_is_said_is_heard_on_the_other_end() {
    let inner = Arc::new(FakeMaintenance::default());
    let daemon = Daemon::start(Services {
        maintenance: Some(inner.clone() as Arc<dyn Maintenance>),
        ..Services::default()
    });
    let remote = RemoteMaintenance::new(daemon.channel.clone());
    for (place, wanted) in explanations().into_iter().enumerate() {
        let asked = object(ObjectKind::Lease, &place.to_string());
        assert_eq!(remote.explain(&cx(), &asked).await.unwrap(), wanted);
    }
    let error = remote.explain(&cx(), &object(ObjectKind::Image, "none")).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "image none: not found"));
    for cx in [cx(), Context::background()] {
        let heard: Vec<Doomed> = remote.preview(&cx).await.unwrap().try_collect().await.unwrap();
        assert_eq!(heard, doomed());
    }
    assert_eq!(remote.collect(&Context::background()).await.unwrap(), COLLECTED);
    let both = CheckOptions { deep: true, repair: true };
    let heard: Vec<CheckEvent> =
        remote.check(&Context::background(), both).await.unwrap().try_collect().await.unwrap();
    assert_eq!(heard, events());
    let refused = remote.check(&cx(), CheckOptions { deep: true, repair: false }).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let asked = inner.0.lock().unwrap().clone();
    assert_eq!(asked[0], "test lease");
    assert_eq!(asked[3..5], ["Some(\"test\")".to_owned(), "None".to_owned()], "{asked:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_kind_that_is_not_known_is_an_invalid_argument() {
    use gantry_api::gantry::services::maintenance::v1 as pb;
    let inner: Arc<dyn Maintenance> = Arc::new(FakeMaintenance::default());
    let daemon = Daemon::start(Services { maintenance: Some(inner), ..Services::default() });
    let mut raw = pb::maintenance_client::MaintenanceClient::new(daemon.channel.clone());
    for object in [None, Some(pb::Object { kind: "layer".into(), ..Default::default() })] {
        let status = raw.explain(pb::ExplainRequest { object }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
    drop(raw);
    daemon.stop().await;
}
