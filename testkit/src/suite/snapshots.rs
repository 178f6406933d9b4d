//! What every [`Snapshotter`] promises. Nothing is mounted, so these need no root where making a snapshot needs none.

use std::sync::Arc;

use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotInfo, SnapshotKind, Snapshotter};
use gantry_core::{ErrorKind, Labels, SnapshotKey};

use super::{all, cx, filters, labels, mask, refused};

/// Tests that what `$open` opens keeps snapshots as it should.
#[macro_export]
macro_rules! snapshotter_suite {
    ($module:ident, root, $open:expr) => {
        $crate::snapshotter_suite!(@ $module, root $open);
    };
    ($module:ident, $open:expr) => {
        $crate::snapshotter_suite!(@ $module, $open);
    };
    (@ $module:ident, $($open:tt)*) => {
        $crate::suite_of!(
            $module,
            snapshots,
            $($open)*,
            [
                prepare_makes_an_active_snapshot,
                commit_removes_the_active_key,
                labels_are_not_carried_over,
                a_view_is_not_committed,
                parents_must_be_committed,
                a_parent_is_not_removed,
                taken_keys_are_refused,
                a_known_reference_is_answered_with_already_exists,
                a_committed_snapshot_has_no_mounts,
                lists_come_in_order_and_filtered,
                a_mask_names_labels,
                what_is_missing_is_not_found,
                namespaces_are_apart,
                usage_grows_with_content,
            ]
        );
    };
}

type Store = Arc<dyn Snapshotter>;

fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).expect("not empty")
}

fn new(name: &str, parent: Option<&str>) -> NewSnapshot {
    NewSnapshot { key: key(name), parent: parent.map(key), labels: Labels::new() }
}

fn commit(name: &str, active: &str) -> CommitSnapshot {
    CommitSnapshot { name: key(name), key: key(active), labels: Labels::new(), parent: None }
}

/// Makes the committed snapshot `name`.
async fn layer(store: &Store, name: &str, parent: Option<&str>) {
    store.prepare(&cx("one"), new("work", parent)).await.expect("prepare");
    store.commit(&cx("one"), commit(name, "work")).await.expect("commit");
}

#[doc(hidden)]
pub async fn prepare_makes_an_active_snapshot(store: Store) {
    layer(&store, "base", None).await;
    let mounts = store.prepare(&cx("one"), new("web", Some("base"))).await.expect("prepare");
    assert!(!mounts.is_empty());
    assert_eq!(store.mounts(&cx("one"), &key("web")).await.expect("mounts"), mounts);
    let info = store.stat(&cx("one"), &key("web")).await.expect("stat");
    assert_eq!((info.kind, info.parent), (SnapshotKind::Active, Some(key("base"))));
}

#[doc(hidden)]
pub async fn commit_removes_the_active_key(store: Store) {
    layer(&store, "base", None).await;
    refused(store.stat(&cx("one"), &key("work")).await, ErrorKind::NotFound);
    assert_eq!(store.stat(&cx("one"), &key("base")).await.expect("stat").kind, SnapshotKind::Committed);
    refused(store.commit(&cx("one"), commit("other", "work")).await, ErrorKind::NotFound);
    store.prepare(&cx("one"), new("work", None)).await.expect("the key is free again");
    refused(store.commit(&cx("one"), commit("base", "work")).await, ErrorKind::AlreadyExists);
    refused(store.commit(&cx("one"), commit("other", "base")).await, ErrorKind::FailedPrecondition);
}

#[doc(hidden)]
pub async fn labels_are_not_carried_over(store: Store) {
    let mut made = new("work", None);
    made.labels = labels(&[("active", "1")]);
    store.prepare(&cx("one"), made).await.expect("prepare");
    let mut how = commit("base", "work");
    how.labels = labels(&[("committed", "1")]);
    store.commit(&cx("one"), how).await.expect("commit");
    assert_eq!(
        store.stat(&cx("one"), &key("base")).await.expect("stat").labels,
        labels(&[("committed", "1")])
    );
}

#[doc(hidden)]
pub async fn a_view_is_not_committed(store: Store) {
    layer(&store, "base", None).await;
    store.view(&cx("one"), new("look", Some("base"))).await.expect("view");
    assert_eq!(store.stat(&cx("one"), &key("look")).await.expect("stat").kind, SnapshotKind::View);
    refused(store.commit(&cx("one"), commit("other", "look")).await, ErrorKind::FailedPrecondition);
    store.view(&cx("one"), new("empty", None)).await.expect("a view needs no parent");
}

#[doc(hidden)]
pub async fn parents_must_be_committed(store: Store) {
    refused(store.prepare(&cx("one"), new("web", Some("missing"))).await, ErrorKind::NotFound);
    store.prepare(&cx("one"), new("work", None)).await.expect("prepare");
    refused(store.prepare(&cx("one"), new("web", Some("work"))).await, ErrorKind::InvalidArgument);
    refused(store.view(&cx("one"), new("web", Some("work"))).await, ErrorKind::InvalidArgument);
    refused(store.stat(&cx("one"), &key("web")).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn a_parent_is_not_removed(store: Store) {
    layer(&store, "base", None).await;
    store.prepare(&cx("one"), new("web", Some("base"))).await.expect("prepare");
    refused(store.remove(&cx("one"), &key("base")).await, ErrorKind::FailedPrecondition);
    store.remove(&cx("one"), &key("web")).await.expect("remove");
    store.remove(&cx("one"), &key("base")).await.expect("remove");
    refused(store.remove(&cx("one"), &key("base")).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn taken_keys_are_refused(store: Store) {
    layer(&store, "base", None).await;
    store.prepare(&cx("one"), new("web", None)).await.expect("prepare");
    refused(store.prepare(&cx("one"), new("web", None)).await, ErrorKind::AlreadyExists);
    refused(store.view(&cx("one"), new("base", None)).await, ErrorKind::AlreadyExists);
    refused(store.commit(&cx("one"), commit("web", "web")).await, ErrorKind::AlreadyExists);
}

#[doc(hidden)]
pub async fn a_known_reference_is_answered_with_already_exists(store: Store) {
    layer(&store, "base", None).await;
    let mut known = new("extract", None);
    known.labels = labels(&[("containerd.io/snapshot.ref", "base")]);
    refused(store.prepare(&cx("one"), known.clone()).await, ErrorKind::AlreadyExists);
    refused(store.stat(&cx("one"), &key("extract")).await, ErrorKind::NotFound);
    known.labels = labels(&[("containerd.io/snapshot.ref", "unknown")]);
    store.prepare(&cx("one"), known).await.expect("prepare");
}

#[doc(hidden)]
pub async fn a_committed_snapshot_has_no_mounts(store: Store) {
    layer(&store, "base", None).await;
    refused(store.mounts(&cx("one"), &key("base")).await, ErrorKind::FailedPrecondition);
}

#[doc(hidden)]
pub async fn lists_come_in_order_and_filtered(store: Store) {
    layer(&store, "b", None).await;
    store.prepare(&cx("one"), new("a", Some("b"))).await.expect("prepare");
    store.view(&cx("one"), new("C", Some("b"))).await.expect("view");
    let names =
        |list: Vec<SnapshotInfo>| list.into_iter().map(|info| info.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(all(store.list(&cx("one"), &[]).await).await), ["C", "a", "b"]);
    assert_eq!(names(all(store.list(&cx("one"), &filters(&["kind==active"])).await).await), ["a"]);
    assert_eq!(names(all(store.list(&cx("one"), &filters(&["parent==b"])).await).await), ["C", "a"]);
}

#[doc(hidden)]
pub async fn a_mask_names_labels(store: Store) {
    layer(&store, "base", None).await;
    let name = key("base");
    let set = labels(&[("a", "1"), ("b", "2")]);
    let after = store.update(&cx("one"), &name, set.clone(), &mask(&["labels.a"])).await.expect("update");
    assert_eq!(after.labels, labels(&[("a", "1")]));
    let after = store.update(&cx("one"), &name, set.clone(), &mask(&[])).await.expect("update");
    assert_eq!(after.labels, set);
    refused(store.update(&cx("one"), &name, set, &mask(&["parent"])).await, ErrorKind::InvalidArgument);
}

#[doc(hidden)]
pub async fn what_is_missing_is_not_found(store: Store) {
    let missing = key("missing");
    refused(store.stat(&cx("one"), &missing).await, ErrorKind::NotFound);
    refused(store.mounts(&cx("one"), &missing).await, ErrorKind::NotFound);
    refused(store.remove(&cx("one"), &missing).await, ErrorKind::NotFound);
    refused(store.usage(&cx("one"), &missing).await, ErrorKind::NotFound);
    refused(store.update(&cx("one"), &missing, Labels::new(), &mask(&[])).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn namespaces_are_apart(store: Store) {
    layer(&store, "base", None).await;
    refused(store.stat(&cx("two"), &key("base")).await, ErrorKind::NotFound);
    refused(store.prepare(&cx("two"), new("web", Some("base"))).await, ErrorKind::NotFound);
    store.prepare(&cx("two"), new("base", None)).await.expect("keys are per namespace");
    store.remove(&cx("two"), &key("base")).await.expect("remove");
    store.stat(&cx("one"), &key("base")).await.expect("the other one stays");
}

#[doc(hidden)]
pub async fn usage_grows_with_content(store: Store) {
    let mounts = store.prepare(&cx("one"), new("web", None)).await.expect("prepare");
    // Without a parent the mount is a bind of a directory that can be written to as it is.
    let before = store.usage(&cx("one"), &key("web")).await.expect("usage");
    if let [mount] = mounts.as_slice()
        && mount.kind == "bind"
    {
        std::fs::write(std::path::Path::new(&mount.source).join("file"), vec![7u8; 100_000]).expect("write");
        let after = store.usage(&cx("one"), &key("web")).await.expect("usage");
        assert!(
            after.size_bytes >= before.size_bytes + 100_000 && after.inodes == before.inodes + 1,
            "{before:?} {after:?}"
        );
    }
}
