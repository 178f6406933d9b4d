//! What every [`ContainerStore`] promises.

use std::sync::Arc;

use gantry_core::containers::{Container, ContainerStore};
use gantry_core::{Any, ContainerId, ErrorKind};

use super::{all, cx, filters, labels, mask, refused};

/// Tests that what `$open` opens keeps containers as it should.
#[macro_export]
macro_rules! container_store_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            containers,
            $open,
            [
                create_answers_as_stored,
                a_taken_id_is_refused,
                required_fields_are_checked,
                what_is_missing_is_not_found,
                lists_come_in_order_and_filtered,
                namespaces_are_apart,
                a_mask_changes_what_it_names,
                without_mask_all_is_replaced_but_what_never_changes,
            ]
        );
    };
}

type Store = Arc<dyn ContainerStore>;

fn container(id: &str) -> Container {
    let mut made = Container::new(ContainerId::parse(id).expect("a valid id"), "io.containerd.runc.v2");
    made.labels = labels(&[("a", "1")]);
    made.spec = Some(Any { type_url: "spec".to_owned(), value: b"{}".to_vec().into() });
    made
}

#[doc(hidden)]
pub async fn create_answers_as_stored(store: Store) {
    let made = store.create(&cx("one"), container("web")).await.expect("create");
    assert_eq!(made.created_at, made.updated_at);
    assert!(made.created_at > std::time::UNIX_EPOCH, "the store sets the time");
    assert_eq!(store.get(&cx("one"), "web").await.expect("get"), made);
    assert_eq!(made.labels, labels(&[("a", "1")]));
}

#[doc(hidden)]
pub async fn a_taken_id_is_refused(store: Store) {
    store.create(&cx("one"), container("web")).await.expect("create");
    refused(store.create(&cx("one"), container("web")).await, ErrorKind::AlreadyExists);
}

#[doc(hidden)]
pub async fn required_fields_are_checked(store: Store) {
    let mut without_runtime = container("web");
    without_runtime.runtime.name.clear();
    refused(store.create(&cx("one"), without_runtime).await, ErrorKind::InvalidArgument);
    let mut without_snapshotter = container("web");
    without_snapshotter.snapshot_key = "key".to_owned();
    refused(store.create(&cx("one"), without_snapshotter).await, ErrorKind::InvalidArgument);
    let mut long = container("web");
    long.labels = labels(&[("key", &"x".repeat(4096))]);
    refused(store.create(&cx("one"), long).await, ErrorKind::InvalidArgument);
    let mut without_spec = container("web");
    without_spec.spec = None;
    store.create(&cx("one"), without_spec).await.expect("a spec is not required");
}

#[doc(hidden)]
pub async fn what_is_missing_is_not_found(store: Store) {
    refused(store.get(&cx("one"), "web").await, ErrorKind::NotFound);
    refused(store.delete(&cx("one"), "web").await, ErrorKind::NotFound);
    refused(store.update(&cx("one"), container("web"), &mask(&["labels"])).await, ErrorKind::NotFound);
    store.create(&cx("one"), container("web")).await.expect("create");
    store.delete(&cx("one"), "web").await.expect("delete");
    refused(store.get(&cx("one"), "web").await, ErrorKind::NotFound);
    store.create(&cx("one"), container("web")).await.expect("the id is free again");
}

#[doc(hidden)]
pub async fn lists_come_in_order_and_filtered(store: Store) {
    for id in ["c", "B", "a", "a.b"] {
        let mut new = container(id);
        new.labels = labels(&[("id", id)]);
        store.create(&cx("one"), new).await.expect("create");
    }
    let ids =
        |list: Vec<Container>| list.into_iter().map(|container| container.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(all(store.list(&cx("one"), &[]).await).await), ["B", "a", "a.b", "c"]);
    assert_eq!(ids(all(store.list(&cx("one"), &filters(&["id==a"])).await).await), ["a"]);
    assert_eq!(
        ids(all(store.list(&cx("one"), &filters(&["labels.id==c", "id==B"])).await).await),
        ["B", "c"]
    );
    assert_eq!(ids(all(store.list(&cx("one"), &filters(&["labels.none"])).await).await), [""; 0]);
    let bad = store.list(&cx("one"), &filters(&["id=="])).await;
    assert_eq!(bad.err().map(|error| error.kind()), Some(ErrorKind::InvalidArgument));
}

#[doc(hidden)]
pub async fn namespaces_are_apart(store: Store) {
    store.create(&cx("one"), container("web")).await.expect("create");
    refused(store.get(&cx("two"), "web").await, ErrorKind::NotFound);
    store.create(&cx("two"), container("web")).await.expect("ids are per namespace");
    store.delete(&cx("one"), "web").await.expect("delete");
    store.get(&cx("two"), "web").await.expect("the other one stays");
    refused(store.get(&gantry_core::Context::background(), "web").await, ErrorKind::FailedPrecondition);
}

#[doc(hidden)]
pub async fn a_mask_changes_what_it_names(store: Store) {
    let before = store.create(&cx("one"), container("web")).await.expect("create");
    let mut changed = container("web");
    changed.image = "ignored".to_owned();
    changed.labels = labels(&[("a", ""), ("b", "2"), ("c", "3")]);
    let after = store.update(&cx("one"), changed.clone(), &mask(&["labels.b"])).await.expect("update");
    assert_eq!(after.labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!((after.image.as_str(), after.created_at), ("", before.created_at));
    assert!(after.updated_at >= before.updated_at);
    let after = store.update(&cx("one"), changed.clone(), &mask(&["labels.a"])).await.expect("update");
    assert_eq!(after.labels, labels(&[("b", "2")]), "an empty value removes");
    refused(
        store.update(&cx("one"), changed.clone(), &mask(&["snapshot_key"])).await,
        ErrorKind::InvalidArgument,
    );
    refused(store.update(&cx("one"), changed, &mask(&["created_at"])).await, ErrorKind::InvalidArgument);
    assert_eq!(store.get(&cx("one"), "web").await.expect("get"), after);
}

#[doc(hidden)]
pub async fn without_mask_all_is_replaced_but_what_never_changes(store: Store) {
    store.create(&cx("one"), container("web")).await.expect("create");
    let mut changed = container("web");
    changed.labels = labels(&[("new", "1")]);
    changed.image = "image".to_owned();
    let after = store.update(&cx("one"), changed.clone(), &mask(&[])).await.expect("update");
    assert_eq!((after.labels, after.image.as_str()), (labels(&[("new", "1")]), "image"));
    let mut other_runtime = changed.clone();
    other_runtime.runtime.name = "other.v1".to_owned();
    refused(store.update(&cx("one"), other_runtime, &mask(&[])).await, ErrorKind::InvalidArgument);
    changed.snapshotter = "native".to_owned();
    refused(store.update(&cx("one"), changed, &mask(&[])).await, ErrorKind::InvalidArgument);
}
