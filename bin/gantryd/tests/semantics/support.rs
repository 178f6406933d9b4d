//! A daemon with clients for its services, and what most questions need.

use std::collections::BTreeMap;

use gantry_api::containerd::services as pb;
use gantry_api::containerd::types::{Descriptor, Mount};
use gantry_api::grpc::health::v1::health_client::HealthClient;
use gantry_api::{Any, FieldMask, Timestamp};
use gantry_testkit::{Daemon, DaemonOptions, Program, sha256};
use pb::containers::v1::containers_client::ContainersClient;
use pb::containers::v1::{Container, CreateContainerRequest, container::Runtime};
use pb::content::v1::content_client::ContentClient;
use pb::content::v1::{InfoRequest, WriteAction, WriteContentRequest};
use pb::events::v1::events_client::EventsClient;
use pb::images::v1::images_client::ImagesClient;
use pb::images::v1::{CreateImageRequest, Image};
use pb::leases::v1::leases_client::LeasesClient;
use pb::leases::v1::{AddResourceRequest, Resource};
use pb::namespaces::v1::namespaces_client::NamespacesClient;
use pb::snapshots::v1::snapshots_client::SnapshotsClient;
use pb::snapshots::v1::{CommitSnapshotRequest, Info, PrepareSnapshotRequest, StatSnapshotRequest};
use pb::tasks::v1::tasks_client::TasksClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::write::Writing;

/// Only collections that a test asks for: the one at start, a tenth of a second after it, would come in between.
const LATE_COLLECTION: &str = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"";

/// The time that Go's programs mean by none.
pub(crate) const GO_ZERO: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// The namespace of most questions.
pub(crate) const TEST: &str = "test";

/// A daemon and a way to ask it.
pub(crate) struct Wire {
    pub(crate) daemon: Daemon,
    pub(crate) channel: Channel,
}

macro_rules! clients {
    ($($name:ident: $client:ty;)*) => {
        impl Wire {
            $(pub(crate) fn $name(&self) -> $client {
                <$client>::new(self.channel.clone())
            })*
        }
    };
}

clients! {
    containers: ContainersClient<Channel>;
    content: ContentClient<Channel>;
    events: EventsClient<Channel>;
    health: HealthClient<Channel>;
    images: ImagesClient<Channel>;
    leases: LeasesClient<Channel>;
    namespaces: NamespacesClient<Channel>;
    snapshots: SnapshotsClient<Channel>;
    tasks: TasksClient<Channel>;
}

impl Wire {
    /// Starts the daemon under test.
    pub(crate) fn start() -> Wire {
        Self::start_with(LATE_COLLECTION)
    }

    /// Starts the daemon under test with these lines of configuration.
    pub(crate) fn start_with(config: &str) -> Wire {
        let daemon = DaemonOptions::new(Program::under_test()).config(config).start();
        let channel = gantry_rpc::connect(daemon.address()).unwrap();
        Wire { daemon, channel }
    }

    /// Stops the daemon and starts it again.
    pub(crate) fn restart(&mut self) {
        self.daemon.restart();
        self.reconnect();
    }

    /// Connects to a daemon that was started again.
    pub(crate) fn reconnect(&mut self) {
        self.channel = gantry_rpc::connect(self.daemon.address()).unwrap();
    }

    /// Whether what containerd has done since version 2 holds. The facts are those of 2.4; Debian's containerd is 1.6.
    pub(crate) fn since_2(&self) -> bool {
        !self.daemon.program().is_containerd()
    }

    /// Whether the daemon is ours, which does some things otherwise on purpose.
    pub(crate) fn is_gantry(&self) -> bool {
        self.daemon.program().name == "gantryd"
    }

    /// Commits `data` as a blob.
    pub(crate) async fn blob(&self, data: &str, labels: &[(&str, &str)]) -> String {
        self.blob_by(in_test, data, labels).await
    }

    /// Commits `data` as a blob under the headers that `headers` sets.
    pub(crate) async fn blob_by<T>(&self, headers: T, data: &str, labels: &[(&str, &str)]) -> String
    where
        T: FnOnce(crate::write::Messages) -> Request<crate::write::Messages>,
    {
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: format!("blob of {data}"),
            total: i64::try_from(data.len()).unwrap(),
            expected: digest_of(data),
            data: data.as_bytes().to_vec().into(),
            labels: pairs(labels),
            ..Default::default()
        };
        let (_, answer) = Writing::open_by(self, headers, message).await.unwrap();
        answer.digest
    }

    /// Whether the namespace of most questions has the blob.
    pub(crate) async fn has_blob(&self, digest: &str) -> bool {
        let info = self.content().info(in_test(InfoRequest { digest: digest.to_owned() })).await;
        is_there(info)
    }

    /// Creates a lease.
    pub(crate) async fn lease(&self, id: &str, labels: &[(&str, &str)]) {
        let request = pb::leases::v1::CreateRequest { id: id.into(), labels: pairs(labels) };
        self.leases().create(in_test(request)).await.unwrap();
    }

    /// Adds a resource to a lease.
    pub(crate) async fn hold(&self, lease: &str, kind: &str, id: &str) -> Result<(), Status> {
        let resource = Some(Resource { id: id.into(), r#type: kind.into() });
        let request = AddResourceRequest { id: lease.into(), resource };
        self.leases().add_resource(in_test(request)).await.map(drop)
    }

    /// The resources of a lease as `type id`, sorted.
    pub(crate) async fn held(&self, lease: &str) -> Vec<String> {
        let request = pb::leases::v1::ListResourcesRequest { id: lease.into() };
        let all = self.leases().list_resources(in_test(request)).await.unwrap().into_inner().resources;
        let mut all: Vec<String> =
            all.into_iter().map(|resource| format!("{} {}", resource.r#type, resource.id)).collect();
        all.sort();
        all
    }

    /// Deletes a lease and waits for the collection that follows.
    pub(crate) async fn release(&self, lease: &str) {
        let request = pb::leases::v1::DeleteRequest { id: lease.into(), sync: true };
        self.leases().delete(in_test(request)).await.unwrap();
    }

    /// Waits for a collection.
    pub(crate) async fn collect(&self) {
        self.lease("to collect", &[]).await;
        self.release("to collect").await;
    }

    /// Creates an image of the blob `digest`.
    pub(crate) async fn image(&self, name: &str, digest: &str, labels: &[(&str, &str)]) -> Image {
        let request = CreateImageRequest { image: Some(image(name, digest, labels)), ..Default::default() };
        self.images().create(in_test(request)).await.unwrap().into_inner().image.unwrap()
    }

    /// Creates a container record.
    pub(crate) async fn container(&self, id: &str, labels: &[(&str, &str)]) -> Container {
        let request = CreateContainerRequest { container: Some(container(id, labels)) };
        self.containers().create(in_test(request)).await.unwrap().into_inner().container.unwrap()
    }

    /// Prepares a snapshot.
    pub(crate) async fn prepare(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: &[(&str, &str)],
    ) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: snapshotter.into(),
            key: key.into(),
            parent: parent.into(),
            labels: pairs(labels),
        };
        self.snapshots().prepare(in_test(request)).await.map(|answer| answer.into_inner().mounts)
    }

    /// Commits the snapshot `key` as `name`.
    pub(crate) async fn commit(
        &self,
        snapshotter: &str,
        name: &str,
        key: &str,
        labels: &[(&str, &str)],
    ) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: snapshotter.into(),
            name: name.into(),
            key: key.into(),
            labels: pairs(labels),
            ..Default::default()
        };
        self.snapshots().commit(in_test(request)).await.map(drop)
    }

    /// What the snapshotter `native` knows of a snapshot.
    pub(crate) async fn stat(&self, key: &str) -> Result<Info, Status> {
        let request = StatSnapshotRequest { snapshotter: "native".into(), key: key.into() };
        self.snapshots().stat(in_test(request)).await.map(|answer| answer.into_inner().info.unwrap())
    }

    /// Whether the snapshotter `native` has a snapshot.
    pub(crate) async fn has_snapshot(&self, key: &str) -> bool {
        is_there(self.stat(key).await)
    }
}

/// The digest of what a blob holds.
pub(crate) fn digest_of(data: &str) -> String {
    sha256(data.as_bytes())
}

/// An image of the blob `digest`.
pub(crate) fn image(name: &str, digest: &str, labels: &[(&str, &str)]) -> Image {
    let target = Some(descriptor(digest));
    Image { name: name.into(), labels: pairs(labels), target, ..Default::default() }
}

/// A descriptor of the blob `digest`, of a type that nobody knows.
pub(crate) fn descriptor(digest: &str) -> Descriptor {
    Descriptor {
        media_type: "any type".into(),
        digest: digest.into(),
        size: 1,
        annotations: BTreeMap::default(),
    }
}

/// A container with what it must have.
pub(crate) fn container(id: &str, labels: &[(&str, &str)]) -> Container {
    let runtime = Some(Runtime { name: "io.containerd.runc.v2".into(), options: None });
    Container { id: id.into(), labels: pairs(labels), runtime, spec: Some(any("spec")), ..Default::default() }
}

/// An Any that nobody reads.
pub(crate) fn any(value: &str) -> Any {
    Any { type_url: "example.com/Unknown".into(), value: value.as_bytes().to_vec() }
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

/// `message` with the headers `headers`.
pub(crate) fn with<T>(headers: &[(&'static str, &str)], message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

pub(crate) fn within<T>(namespace: &str, message: T) -> Request<T> {
    with(&[("containerd-namespace", namespace)], message)
}

pub(crate) fn in_test<T>(message: T) -> Request<T> {
    within(TEST, message)
}

/// `message` under a lease.
pub(crate) fn leased<T>(lease: &str, message: T) -> Request<T> {
    with(&[("containerd-namespace", TEST), ("containerd-lease", lease)], message)
}

/// The code of an answer.
pub(crate) fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// Fails unless the answer has this code and its message contains `text`.
#[track_caller]
pub(crate) fn refused<T>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.err().unwrap_or_else(|| Status::ok("no refusal"));
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{text:?} in {status}");
}

/// Whether what was asked for is there; any other failure fails the test.
#[track_caller]
pub(crate) fn is_there<T>(answer: Result<T, Status>) -> bool {
    match code(answer) {
        Code::Ok => true,
        Code::NotFound => false,
        other => panic!("neither there nor missing: {other}"),
    }
}
