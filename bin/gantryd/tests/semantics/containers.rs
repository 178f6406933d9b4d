//! Containers.

use gantry_api::Timestamp;
use gantry_api::containerd::services::containers::v1::container::Runtime;
use gantry_api::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, UpdateContainerRequest,
};
use gantry_api::containerd::services::tasks::v1::{DeleteTaskRequest, GetRequest, KillRequest, WaitRequest};
use gantry_testkit::{busybox_image, root};
use tonic::{Code, Status};

use crate::support::{TEST, Wire, any, code, container, in_test, mask, pairs, refused};

async fn create(wire: &Wire, container: Container) -> Result<Container, Status> {
    let request = CreateContainerRequest { container: Some(container) };
    wire.containers().create(in_test(request)).await.map(|answer| answer.into_inner().container.unwrap())
}

async fn update(wire: &Wire, container: Container, paths: &[&str]) -> Result<Container, Status> {
    let update_mask = if paths.is_empty() { None } else { mask(paths) };
    let request = UpdateContainerRequest { container: Some(container), update_mask };
    wire.containers().update(in_test(request)).await.map(|answer| answer.into_inner().container.unwrap())
}

fn runtime(name: &str) -> Option<Runtime> {
    Some(Runtime { name: name.into(), options: None })
}

#[tokio::test]
async fn a_container_needs_a_runtime_and_no_spec() {
    root!();
    let wire = Wire::start();
    let invalid = Code::InvalidArgument;
    for runtime in [None, runtime("")] {
        assert_eq!(code(create(&wire, Container { runtime, ..container("c", &[]) }).await), invalid);
    }
    let keyed = |snapshotter: &str| Container {
        snapshotter: snapshotter.into(),
        snapshot_key: "absent".into(),
        sandbox: "no such sandbox".into(),
        ..container("keyed", &[])
    };
    assert_eq!(code(create(&wire, keyed("")).await), invalid);
    create(&wire, keyed("no such snapshotter")).await.expect("neither is looked for");
    let bare = create(&wire, Container { spec: None, ..container("c", &[]) }).await;
    if wire.since_2() {
        bare.unwrap();
    } else {
        // 1.6 asks for a spec.
        refused(bare, invalid, "container.Spec");
        create(&wire, container("c", &[])).await.unwrap();
    }
    assert_eq!(code(create(&wire, container("c", &[])).await), Code::AlreadyExists);
}

#[tokio::test]
async fn times_of_the_request_are_ignored() {
    root!();
    let wire = Wire::start();
    let given = Some(Timestamp { seconds: 1000, nanos: 0 });
    let timed = Container { created_at: given, updated_at: given, ..container("c", &[]) };
    let made = create(&wire, timed.clone()).await.unwrap();
    assert!(made.created_at.is_some_and(|time| time.seconds > 1000), "{made:?}");
    assert_eq!(made.created_at, made.updated_at);
    let changed = update(&wire, timed, &["labels"]).await.unwrap();
    assert_eq!(changed.created_at, made.created_at);
    assert!(changed.updated_at.unwrap().seconds > 1000);
}

#[tokio::test]
async fn a_mask_names_one_of_seven_paths() {
    root!();
    let wire = Wire::start();
    let extension = |value: &str| [("e".to_owned(), any(value)), ("f.g".to_owned(), any(value))].into();
    let stored = Container {
        snapshotter: "snapshotter 1".into(),
        extensions: extension("1"),
        ..container("c", &[("a", "1"), ("b", "1")])
    };
    create(&wire, stored).await.unwrap();
    let given = || Container {
        image: "image 2".into(),
        snapshotter: "snapshotter 2".into(),
        snapshot_key: "key 2".into(),
        spec: Some(any("spec 2")),
        extensions: extension("2"),
        ..container("c", &[("a", "2"), ("x.y", "2")])
    };
    let answer = update(&wire, given(), &["labels.a", "labels.x.y"]).await.unwrap();
    assert_eq!(answer.labels, pairs(&[("a", "2"), ("b", "1"), ("x.y", "2")]), "x.y is one key");
    assert_eq!(answer.spec, Some(any("spec")));
    let answer = update(&wire, given(), &["labels", "extensions.f.g"]).await.unwrap();
    assert_eq!(answer.labels, pairs(&[("a", "2"), ("x.y", "2")]));
    let extensions = [("e".to_owned(), any("1")), ("f.g".to_owned(), any("2"))].into();
    assert_eq!(answer.extensions, extensions);
    let paths = ["spec", "extensions", "image", "snapshotkey"];
    let answer = update(&wire, given(), &paths).await.unwrap();
    assert_eq!((answer.spec, answer.extensions), (Some(any("spec 2")), extension("2")));
    assert_eq!((&*answer.image, &*answer.snapshot_key), ("image 2", "key 2"));
    assert_eq!(answer.snapshotter, "snapshotter 1", "it is in no mask");
    for path in ["snapshot_key", "snapshotter", "runtime", "id", "created_at", "label", "sandbox"] {
        assert_eq!(code(update(&wire, given(), &[path]).await), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn without_a_mask_runtime_and_snapshotter_must_be_the_stored_ones() {
    root!();
    let wire = Wire::start();
    let stored = Container { snapshotter: "native".into(), ..container("c", &[("a", "1")]) };
    create(&wire, stored.clone()).await.unwrap();
    let other = Container { runtime: runtime("io.containerd.other.v1"), ..stored.clone() };
    assert_eq!(code(update(&wire, other.clone(), &[]).await), Code::InvalidArgument);
    let another = Container { snapshotter: "overlayfs".into(), ..stored.clone() };
    assert_eq!(code(update(&wire, another, &[]).await), Code::InvalidArgument);
    let masked = update(&wire, other, &["labels"]).await.expect("with a mask nothing is compared");
    assert_eq!(masked.runtime, stored.runtime);
    let changed = Container { labels: pairs(&[("b", "2")]), image: "image".into(), ..stored };
    let answer = update(&wire, changed, &[]).await.unwrap();
    assert_eq!((answer.labels, &*answer.image), (pairs(&[("b", "2")]), "image"));
    assert_eq!(code(update(&wire, container("absent", &[]), &[]).await), Code::NotFound);
}

#[tokio::test]
async fn a_container_is_deleted_while_its_task_runs_which_is_not_found_then() {
    root!();
    let wire = Wire::start();
    let ctr = wire.daemon.ctr().in_namespace(TEST);
    let archive = wire.daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, "busybox");
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    ctr.ok(&["run", "--detach", "busybox", "c", "/bin/sleep", "1000"]);
    let get = || in_test(GetRequest { container_id: "c".into(), exec_id: String::new() });
    let process = wire.tasks().get(get()).await.unwrap().into_inner().process.unwrap();
    wire.containers().delete(in_test(DeleteContainerRequest { id: "c".into() })).await.unwrap();
    refused(wire.tasks().get(get()).await, Code::NotFound, "container");
    let kill = KillRequest { container_id: "c".into(), signal: 9, ..Default::default() };
    refused(wire.tasks().kill(in_test(kill)).await, Code::NotFound, "container");
    let delete = DeleteTaskRequest { container_id: "c".into() };
    refused(wire.tasks().delete(in_test(delete)).await, Code::NotFound, "container");
    let wait = WaitRequest { container_id: "c".into(), ..Default::default() };
    refused(wire.tasks().wait(in_test(wait)).await, Code::NotFound, "container");
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap();
    assert!(line.contains("sleep"), "it still runs: {line:?}");
}

#[tokio::test]
async fn an_absent_container_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    let create = wire.containers().create(in_test(CreateContainerRequest::default())).await;
    refused(create, Code::InvalidArgument, "\"container\"");
    let update = wire.containers().update(in_test(UpdateContainerRequest::default())).await;
    refused(update, Code::InvalidArgument, "\"container\"");
}
