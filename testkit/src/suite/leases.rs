//! What every [`LeaseManager`] promises.

use std::sync::Arc;

use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::{ErrorKind, Labels, LeaseId};

use super::{cx, filters, labels, refused};

/// Tests that what `$open` opens keeps leases as it should.
#[macro_export]
macro_rules! lease_manager_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            leases,
            $open,
            [
                create_answers_as_stored,
                an_id_is_made_up,
                a_taken_id_is_refused,
                lists_are_filtered,
                resources_are_added_once_and_removed,
                types_of_resources_are_checked,
                what_is_missing_is_not_found,
            ]
        );
    };
}

type Store = Arc<dyn LeaseManager>;

fn id(text: &str) -> LeaseId {
    LeaseId::parse(text).expect("any text")
}

fn resource(kind: &str, id: &str) -> LeaseResource {
    LeaseResource { id: id.to_owned(), kind: kind.to_owned() }
}

#[doc(hidden)]
pub async fn create_answers_as_stored(store: Store) {
    let made = store.create(&cx("one"), Some(id("l1")), labels(&[("a", "1")])).await.expect("create");
    assert_eq!((made.id.as_str(), &made.labels), ("l1", &labels(&[("a", "1")])));
    assert_eq!(store.list(&cx("one"), &[]).await.expect("list"), [made]);
    assert_eq!(store.list(&cx("two"), &[]).await.expect("list"), []);
}

#[doc(hidden)]
pub async fn an_id_is_made_up(store: Store) {
    let first = store.create(&cx("one"), None, Labels::new()).await.expect("create");
    let second = store.create(&cx("one"), None, Labels::new()).await.expect("create");
    assert!(!first.id.as_str().is_empty());
    assert_ne!(first.id, second.id);
}

#[doc(hidden)]
pub async fn a_taken_id_is_refused(store: Store) {
    store.create(&cx("one"), Some(id("with space/../")), Labels::new()).await.expect("any text is an id");
    let again = store.create(&cx("one"), Some(id("with space/../")), Labels::new()).await;
    refused(again, ErrorKind::AlreadyExists);
}

#[doc(hidden)]
pub async fn lists_are_filtered(store: Store) {
    for name in ["b", "a"] {
        store.create(&cx("one"), Some(id(name)), labels(&[("name", name)])).await.expect("create");
    }
    let found = store.list(&cx("one"), &filters(&["labels.name==b"])).await.expect("list");
    assert_eq!(found.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), ["b"]);
    refused(store.list(&cx("one"), &filters(&["id=="])).await, ErrorKind::InvalidArgument);
}

#[doc(hidden)]
pub async fn resources_are_added_once_and_removed(store: Store) {
    store.create(&cx("one"), Some(id("l1")), Labels::new()).await.expect("create");
    let blob = resource("content", &format!("sha256:{}", "1".repeat(64)));
    let all = [
        blob.clone(),
        resource("ingests", "ref"),
        resource("images", "any name"),
        resource("snapshots/none", "key"),
    ];
    for each in all.iter().chain([&blob]) {
        store.add_resource(&cx("one"), &id("l1"), each.clone()).await.expect("existence is not checked");
    }
    let mut kept = store.resources(&cx("one"), &id("l1")).await.expect("resources");
    let mut wanted = all.to_vec();
    kept.sort();
    wanted.sort();
    assert_eq!(kept, wanted);
    store.delete_resource(&cx("one"), &id("l1"), blob.clone()).await.expect("delete");
    store.delete_resource(&cx("one"), &id("l1"), blob).await.expect("what is not there may be deleted");
    assert_eq!(store.resources(&cx("one"), &id("l1")).await.expect("resources").len(), 3);
}

#[doc(hidden)]
pub async fn types_of_resources_are_checked(store: Store) {
    store.create(&cx("one"), Some(id("l1")), Labels::new()).await.expect("create");
    for (kind, name, wanted) in [
        ("content", "no digest", ErrorKind::InvalidArgument),
        ("content/x", "a", ErrorKind::InvalidArgument),
        ("snapshots", "a", ErrorKind::InvalidArgument),
        ("snapshots/a/b", "a", ErrorKind::InvalidArgument),
        ("other", "a", ErrorKind::Unimplemented),
    ] {
        refused(store.add_resource(&cx("one"), &id("l1"), resource(kind, name)).await, wanted);
    }
}

#[doc(hidden)]
pub async fn what_is_missing_is_not_found(store: Store) {
    refused(store.delete(&cx("one"), &id("l1"), false).await, ErrorKind::NotFound);
    refused(store.resources(&cx("one"), &id("l1")).await, ErrorKind::NotFound);
    refused(store.add_resource(&cx("one"), &id("l1"), resource("images", "x")).await, ErrorKind::NotFound);
    store.create(&cx("one"), Some(id("l1")), Labels::new()).await.expect("create");
    store.delete(&cx("one"), &id("l1"), true).await.expect("delete");
    assert_eq!(store.list(&cx("one"), &[]).await.expect("list"), []);
}
