//! What is wrong with a request is said before anything is asked to act: behind this server there is nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use gantry_api::containerd::services as pb;
use gantry_api::containerd::types;
use gantry_rpc::{Services, connect};
use support::Daemon;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Every service, each a remote end that reaches nobody: what gets through is UNAVAILABLE.
fn daemon() -> Daemon {
    let nowhere = connect("/nonexistent/gantry.sock").unwrap();
    let n = || nowhere.clone();
    let diff = Arc::new(gantry_rpc::diff::RemoteDiff::new(n()));
    let native = gantry_rpc::snapshots::RemoteSnapshotter::new(n(), "native");
    let controller = gantry_rpc::sandbox_controllers::RemoteSandboxController::new(n(), "shim");
    Daemon::start(Services {
        version: String::new(),
        revision: String::new(),
        introspection: Some(Arc::new(gantry_rpc::introspection::RemoteIntrospection::new(n()))),
        namespaces: Some(Arc::new(gantry_rpc::namespaces::RemoteNamespaces::new(n()))),
        containers: Some(Arc::new(gantry_rpc::containers::RemoteContainers::new(n()))),
        images: Some(Arc::new(gantry_rpc::images::RemoteImages::new(n()))),
        content: Some(Arc::new(gantry_rpc::content::RemoteContentStore::new(n()))),
        leases: Some(Arc::new(gantry_rpc::leases::RemoteLeases::new(n()))),
        snapshotters: [("native".to_owned(), Arc::new(native) as Arc<_>)].into(),
        applier: Some(diff.clone()),
        comparer: Some(diff),
        events: Some(Arc::new(gantry_rpc::events::RemoteEvents::new(n()))),
        tasks: Some(Arc::new(gantry_rpc::tasks::RemoteTasks::new(n()))),
        sandboxes: Some(Arc::new(gantry_rpc::sandboxes::RemoteSandboxes::new(n()))),
        sandbox_controllers: [("shim".to_owned(), Arc::new(controller) as Arc<_>)].into(),
        maintenance: Some(Arc::new(gantry_rpc::maintenance::RemoteMaintenance::new(n()))),
        mounts: Some(Arc::new(gantry_rpc::mounts::RemoteMounts::new(n()))),
        streams: None,
    })
}

fn in_test<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "test".parse().unwrap());
    request
}

#[track_caller]
fn names<T>(answer: Result<T, Status>, field: &str) {
    let status = answer.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
    assert!(status.message().contains(field), "{field}: {status}");
}

macro_rules! client {
    ($daemon:expr, $client:path) => {{
        use $client as Client;
        Client::<Channel>::new($daemon.channel.clone())
    }};
}

#[tokio::test]
async fn every_absent_sub_message_is_named() {
    let daemon = daemon();
    let mut namespaces = client!(daemon, pb::namespaces::v1::namespaces_client::NamespacesClient);
    names(namespaces.create(in_test(Default::default())).await, "namespace");
    names(namespaces.update(in_test(Default::default())).await, "namespace");
    let mut containers = client!(daemon, pb::containers::v1::containers_client::ContainersClient);
    names(containers.create(in_test(Default::default())).await, "container");
    names(containers.update(in_test(Default::default())).await, "container");
    let mut images = client!(daemon, pb::images::v1::images_client::ImagesClient);
    names(images.create(in_test(Default::default())).await, "image");
    names(images.update(in_test(Default::default())).await, "image");
    let image = pb::images::v1::Image { name: "n".into(), ..Default::default() };
    let request = pb::images::v1::CreateImageRequest { image: Some(image.clone()), ..Default::default() };
    names(images.create(in_test(request)).await, "image.target");
    let request = pb::images::v1::UpdateImageRequest { image: Some(image), ..Default::default() };
    names(images.update(in_test(request)).await, "image.target");
    let mut sandboxes = client!(daemon, pb::sandbox::v1::store_client::StoreClient);
    names(sandboxes.create(in_test(Default::default())).await, "sandbox");
    names(sandboxes.update(in_test(Default::default())).await, "sandbox");
    let sandbox = Some(types::Sandbox { sandbox_id: "s".into(), ..Default::default() });
    let request = pb::sandbox::v1::StoreCreateRequest { sandbox };
    names(sandboxes.create(in_test(request)).await, "sandbox.runtime");
    let mut controllers = client!(daemon, pb::sandbox::v1::controller_client::ControllerClient);
    names(controllers.create(in_test(Default::default())).await, "sandboxer");
    let request = pb::sandbox::v1::ControllerCreateRequest { sandboxer: "shim".into(), ..Default::default() };
    names(controllers.create(in_test(request)).await, "sandbox");
    let request = pb::sandbox::v1::ControllerUpdateRequest { sandboxer: "shim".into(), ..Default::default() };
    names(controllers.update(in_test(request)).await, "sandbox");
    let mut leases = client!(daemon, pb::leases::v1::leases_client::LeasesClient);
    names(leases.add_resource(in_test(Default::default())).await, "resource");
    names(leases.delete_resource(in_test(Default::default())).await, "resource");
    let mut content = client!(daemon, pb::content::v1::content_client::ContentClient);
    names(content.update(in_test(Default::default())).await, "info");
    let mut snapshots = client!(daemon, pb::snapshots::v1::snapshots_client::SnapshotsClient);
    let request =
        pb::snapshots::v1::UpdateSnapshotRequest { snapshotter: "native".into(), ..Default::default() };
    names(snapshots.update(in_test(request)).await, "info");
    let mut diff = client!(daemon, pb::diff::v1::diff_client::DiffClient);
    names(diff.apply(in_test(Default::default())).await, "diff");
    let mut events = client!(daemon, pb::events::v1::events_client::EventsClient);
    names(events.forward(in_test(Default::default())).await, "envelope");
    let mut tasks = client!(daemon, pb::tasks::v1::tasks_client::TasksClient);
    let exec = pb::tasks::v1::ExecProcessRequest { exec_id: "e".into(), ..Default::default() };
    names(tasks.exec(in_test(exec)).await, "spec");
    names(tasks.update(in_test(Default::default())).await, "resources");
}

#[tokio::test]
async fn digests_and_times_that_are_none_are_named() {
    let daemon = daemon();
    let mut images = client!(daemon, pb::images::v1::images_client::ImagesClient);
    let target = types::Descriptor { digest: "sha256:short".into(), ..Default::default() };
    let request =
        pb::images::v1::DeleteImageRequest { name: "n".into(), sync: false, target: Some(target.clone()) };
    names(images.delete(in_test(request)).await, "target");
    let mut diff = client!(daemon, pb::diff::v1::diff_client::DiffClient);
    let request = pb::diff::v1::ApplyRequest { diff: Some(target), ..Default::default() };
    names(diff.apply(in_test(request)).await, "diff");
    let mut events = client!(daemon, pb::events::v1::events_client::EventsClient);
    for (seconds, nanos) in [(-62_135_596_800, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
        let timestamp = Some(gantry_api::Timestamp { seconds, nanos });
        let envelope = Some(types::Envelope { timestamp, ..Default::default() });
        names(events.forward(in_test(pb::events::v1::ForwardRequest { envelope })).await, "timestamp");
    }
}

#[tokio::test]
async fn snapshots_have_their_own_codes() {
    let daemon = daemon();
    let mut snapshots = client!(daemon, pb::snapshots::v1::snapshots_client::SnapshotsClient);
    let native = || "native".to_owned();
    let prepare = pb::snapshots::v1::PrepareSnapshotRequest { snapshotter: native(), ..Default::default() };
    let status = snapshots.prepare(in_test(prepare)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "bucket name required"));
    let commit = pb::snapshots::v1::CommitSnapshotRequest { snapshotter: native(), ..Default::default() };
    assert_eq!(snapshots.commit(in_test(commit)).await.unwrap_err().code(), Code::Unknown);
    let stat = |snapshotter: &str| pb::snapshots::v1::StatSnapshotRequest {
        snapshotter: snapshotter.into(),
        key: String::new(),
    };
    assert_eq!(snapshots.stat(in_test(stat("native"))).await.unwrap_err().code(), Code::NotFound);
    names(snapshots.stat(in_test(stat("zfs"))).await, "snapshotter not loaded: zfs");
    names(snapshots.stat(in_test(stat(""))).await, "snapshotter");
    let list = pb::snapshots::v1::ListSnapshotsRequest { snapshotter: native(), ..Default::default() };
    assert_eq!(snapshots.list(list).await.unwrap_err().code(), Code::Unknown);
}

#[tokio::test]
async fn metrics_without_a_namespace_are_unknown() {
    let daemon = daemon();
    let mut tasks = client!(daemon, pb::tasks::v1::tasks_client::TasksClient);
    let request = pb::tasks::v1::MetricsRequest::default();
    assert_eq!(tasks.metrics(request.clone()).await.unwrap_err().code(), Code::Unknown);
    assert_eq!(tasks.metrics(in_test(request)).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_socket_with_a_long_path_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let short = dir.path().join("s");
    std::os::unix::fs::symlink(&long, &short).unwrap();
    let listener = tokio::net::UnixListener::bind(short.join("g.sock")).unwrap();
    let jobs = gantry_rpc::JobSet::default();
    let routes = Services { version: "v1".into(), ..Services::default() }.routes(&jobs);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let serving = gantry_rpc::serve(listener, routes, jobs, std::time::Duration::from_secs(5), shutdown);
    let asking = async {
        let version = gantry_rpc::version::RemoteVersion::new(connect(long.join("g.sock")).unwrap());
        let answer = version.get(&gantry_core::Context::background()).await;
        drop(version);
        stop.send(()).unwrap();
        answer.unwrap().version
    };
    let (served, version) = tokio::join!(serving, asking);
    served.unwrap();
    assert_eq!(version, "v1");
}
