//! The client library over the services of this process: no socket, no message, no conversion in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{
    Client, ContainerOptions, DaemonVersion, DeleteContainer, FifoIo, IoRequest, PullOptions, Services,
};
use gantry_core::events::EventService;
use gantry_core::snapshots::Snapshotter;
use gantry_core::{ContainerId, ErrorKind, Namespace};
use gantry_oci::{Reference, SpecOptions};
use gantry_plugin::PluginKind;
use gantry_testkit::{Compression, FakeRegistry, ImageBuilder, bin_dir, busybox_layer, root};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Jobs, Parts, start};
use crate::config::Config;

/// What a plugin in this process works with.
fn client(parts: &Parts, namespace: &str) -> Client {
    macro_rules! service {
        ($id:literal) => {
            parts.loaded.by_id(PluginKind::Service, $id).expect($id)
        };
    }
    let snapshotters: BTreeMap<String, Arc<dyn Snapshotter>> =
        parts.loaded.all::<dyn Snapshotter>(PluginKind::Service).into_iter().collect();
    let events: Arc<dyn EventService> = parts.loaded.by_id(PluginKind::Event, "exchange").expect("events");
    let services = Services {
        containers: service!("containers-service"),
        images: service!("images-service"),
        content: service!("content-service"),
        leases: parts.loaded.by_id(PluginKind::Lease, "manager").expect("leases"),
        snapshotters: Arc::new(snapshotters),
        applier: service!("diff-service"),
        tasks: service!("tasks-service"),
        events,
        namespaces: service!("namespaces-service"),
        introspection: service!("introspection-service"),
        maintenance: parts.loaded.by_id(PluginKind::Grpc, "gantry-maintenance").expect("maintenance"),
        version: Arc::new(DaemonVersion { version: "test".to_owned(), revision: String::new() }),
    };
    Client::from_services(services, Namespace::parse(namespace).unwrap())
}

fn config(dir: &Path) -> Config {
    let socket = |name: &str| dir.join(name).display().to_string();
    let sections = format!(
        "[\"io.containerd.server.v1.grpc\"]\naddress = {:?}\n[\"io.containerd.server.v1.ttrpc\"]\naddress = {:?}\n",
        socket("grpc.sock"),
        socket("ttrpc.sock")
    );
    Config {
        root: dir.join("root"),
        state: dir.join("state"),
        plugins: sections.parse().unwrap(),
        ..Config::default()
    }
}

#[test]
fn a_client_in_this_process_pulls_runs_and_deletes() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::start();
    let image = ImageBuilder::new().layer(busybox_layer(), Compression::Gzip).env("PATH=/bin").build();
    let reference = registry.offer(&image, "library/busybox:1");
    let config = Arc::new(config(dir.path()));
    std::fs::create_dir_all(&config.root).unwrap();
    std::fs::create_dir_all(&config.state).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let jobs = Jobs { tracker: TaskTracker::new(), stop: CancellationToken::new() };
        let starting = (Arc::clone(&config), jobs.clone());
        let parts =
            tokio::task::spawn_blocking(move || start(&starting.0, &starting.1)).await.unwrap().unwrap();
        // Shims tell their events to this socket; there is none for clients.
        let listener = tokio::net::UnixListener::bind(dir.path().join("ttrpc.sock")).unwrap();
        let shims =
            parts.servers.ttrpc(listener, Duration::from_secs(1), jobs.stop.clone().cancelled_owned());
        jobs.tracker.spawn(async move { shims.await.unwrap() });
        run(&client(&parts, "inside"), &reference).await;
        assert!(!dir.path().join("grpc.sock").exists());
        jobs.stop.cancel();
        jobs.tracker.close();
        jobs.tracker.wait().await;
        parts.close(Duration::from_secs(5)).await.unwrap();
    });
}

async fn run(client: &Client, reference: &str) {
    let mut options = PullOptions { unpack: true, ..PullOptions::default() };
    options.registry.hosts.plain_http = true;
    let image = client.pull(&Reference::parse(reference).unwrap(), options).await.unwrap();
    let options = ContainerOptions {
        image: Some(image),
        // The runtime's name may be the shim's path.
        runtime: Some(bin_dir().join("containerd-shim-runc-v2").display().to_string()),
        spec: SpecOptions {
            command: ["/bin/sh", "-c", "echo inside; exit 3"].map(str::to_owned).into(),
            ..SpecOptions::default()
        },
        ..ContainerOptions::default()
    };
    let container = client.new_container(ContainerId::parse("c1").unwrap(), options).await.unwrap();
    let (sink, mut source) = tokio::io::duplex(1 << 16);
    let io = FifoIo { stdout: Some(Box::new(sink)), ..FifoIo::default() };
    let task = container.new_task(IoRequest::Fifos(io)).await.unwrap();
    task.start().await.unwrap();
    assert_eq!(task.wait().await.unwrap().status, 3);
    assert_eq!(task.delete().await.unwrap().status, 3);
    let mut printed = String::new();
    source.read_to_string(&mut printed).await.unwrap();
    assert_eq!(printed, "inside\n");
    container.delete(DeleteContainer { snapshot: true }).await.unwrap();
    assert_eq!(container.info().await.unwrap_err().kind(), ErrorKind::NotFound);
}
