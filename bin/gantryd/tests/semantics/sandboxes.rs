//! The store of sandboxes, which 1.6 does not have.

use gantry_api::containerd::services::namespaces::v1::DeleteNamespaceRequest;
use gantry_api::containerd::services::sandbox::v1::store_client::StoreClient;
use gantry_api::containerd::services::sandbox::v1::{
    StoreCreateRequest, StoreDeleteRequest, StoreGetRequest, StoreListRequest, StoreUpdateRequest,
};
use gantry_api::containerd::types::Sandbox;
use gantry_api::containerd::types::sandbox::Runtime;
use gantry_testkit::root;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::subscription::Subscription;
use crate::support::{TEST, Wire, code, in_test, is_there, pairs, refused};

fn store(wire: &Wire) -> StoreClient<Channel> {
    StoreClient::new(wire.channel.clone())
}

async fn create(wire: &Wire, id: &str, labels: &[(&str, &str)]) -> Result<(), Status> {
    let sandbox = Sandbox {
        sandbox_id: id.into(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        labels: pairs(labels),
        ..Default::default()
    };
    store(wire).create(in_test(StoreCreateRequest { sandbox: Some(sandbox) })).await.map(drop)
}

#[tokio::test]
async fn labels_are_not_checked_and_nothing_is_told() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut seen = Subscription::start(&wire, &[]).await;
    create(&wire, "s", &[("long", &"x".repeat(5000)), ("empty", "")]).await.unwrap();
    for id in ["", "a--b", "a_", &"i".repeat(77)] {
        assert_eq!(code(create(&wire, id, &[]).await), Code::InvalidArgument, "{id:?}");
    }
    let request = StoreListRequest { filters: vec!["a/b==c".into()] };
    assert_eq!(code(store(&wire).list(in_test(request)).await), Code::InvalidArgument);
    assert_eq!(seen.topics(&wire).await, [""; 0]);
}

fn sandbox(id: &str, runtime: &str, labels: &[(&str, &str)]) -> Sandbox {
    Sandbox {
        sandbox_id: id.into(),
        runtime: Some(Runtime { name: runtime.into(), options: None }),
        labels: pairs(labels),
        sandboxer: "shim".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_record_is_made_once_changed_by_a_mask_and_deleted() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut store = store(&wire);
    let new = |sandbox| in_test(StoreCreateRequest { sandbox: Some(sandbox) });
    let made = store.create(new(sandbox("a", "r", &[("x", "1"), ("y", "2")]))).await.unwrap();
    let made = made.into_inner().sandbox.unwrap();
    assert!(made.created_at.is_some() && made.created_at == made.updated_at);
    assert_eq!(made.sandboxer, "shim");
    assert_eq!(code(store.create(new(sandbox("a", "r", &[]))).await), Code::AlreadyExists);
    store.create(new(sandbox("b", "", &[]))).await.expect("a runtime needs no name");

    let update = |sandbox, fields: &[&str]| {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        in_test(StoreUpdateRequest { sandbox: Some(sandbox), fields })
    };
    let changed = sandbox("a", "other", &[("x", "9"), ("z", "3")]);
    let answer = store.update(update(changed.clone(), &["labels.x", "labels.y"])).await.unwrap();
    let answer = answer.into_inner().sandbox.unwrap();
    assert_eq!(answer.runtime.unwrap().name, "r");
    let stored = store.get(in_test(StoreGetRequest { sandbox_id: "a".into() })).await.unwrap();
    let stored = stored.into_inner().sandbox.unwrap();
    assert_eq!((stored.labels, stored.created_at), (pairs(&[("x", "9")]), made.created_at));
    refused(store.update(update(changed.clone(), &[])).await, Code::InvalidArgument, "immutable");
    let answer = store.update(update(changed.clone(), &["runtime", "labels"])).await.unwrap();
    assert_eq!(answer.into_inner().sandbox.unwrap().runtime.unwrap().name, "other");
    for field in ["sandboxer", "created_at", "label"] {
        assert_eq!(
            code(store.update(update(changed.clone(), &[field])).await),
            Code::InvalidArgument,
            "{field}"
        );
    }
    assert_eq!(code(store.update(update(sandbox("none", "r", &[]), &["labels"])).await), Code::NotFound);

    for (filter, ids) in [
        ("", &["a", "b"][..]),
        ("id==b", &["b"]),
        ("labels.z==3", &["a"]),
        // Only id and labels are adapted.
        ("runtime.name==other", &[]),
        ("sandboxer==shim", &[]),
        ("bogus!=1", &["a", "b"]),
    ] {
        let request = StoreListRequest { filters: vec![filter.into()] };
        let all = store.list(in_test(request)).await.unwrap().into_inner().list;
        let found: Vec<_> = all.iter().map(|sandbox| sandbox.sandbox_id.as_str()).collect();
        assert_eq!(found, ids, "{filter}");
    }
    let delete = || in_test(StoreDeleteRequest { sandbox_id: "a".into() });
    store.delete(delete()).await.unwrap();
    assert_eq!(code(store.delete(delete()).await), Code::NotFound);
}

#[tokio::test]
async fn they_go_with_their_namespace() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    create(&wire, "s", &[]).await.unwrap();
    let get = || in_test(StoreGetRequest { sandbox_id: "s".into() });
    assert!(is_there(store(&wire).get(get()).await));
    wire.namespaces().delete(DeleteNamespaceRequest { name: TEST.into() }).await.unwrap();
    assert!(!is_there(store(&wire).get(get()).await));
}

#[tokio::test]
async fn an_absent_sandbox_or_runtime_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // The current one ends there.
    }
    let mut store = store(&wire);
    let invalid = Code::InvalidArgument;
    refused(store.create(in_test(StoreCreateRequest::default())).await, invalid, "\"sandbox\"");
    refused(store.update(in_test(StoreUpdateRequest::default())).await, invalid, "\"sandbox\"");
    let bare = || Some(Sandbox { sandbox_id: "s".into(), ..Default::default() });
    let request = StoreCreateRequest { sandbox: bare() };
    refused(store.create(in_test(request)).await, invalid, "\"sandbox.runtime\"");
    create(&wire, "s", &[]).await.unwrap();
    let request = StoreUpdateRequest { sandbox: bare(), ..Default::default() };
    refused(store.update(in_test(request)).await, invalid, "\"sandbox.runtime\"");
}
