//! What every [`NamespaceStore`] promises.

use std::sync::Arc;

use gantry_core::namespaces::{NamespaceRecord, NamespaceStore};
use gantry_core::{Context, ErrorKind, Labels, Namespace};

use super::{labels, mask, refused};

/// Tests that what `$open` opens keeps namespaces as it should.
#[macro_export]
macro_rules! namespace_store_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            namespaces,
            $open,
            [
                a_namespace_is_made_once,
                a_missing_one_has_no_labels,
                lists_come_in_order,
                a_mask_names_one_label,
                without_mask_all_labels_are_replaced,
                what_is_missing_cannot_be_deleted,
            ]
        );
    };
}

type Store = Arc<dyn NamespaceStore>;

fn name(text: &str) -> Namespace {
    Namespace::parse(text).expect("a valid namespace")
}

fn record(text: &str, set: &[(&str, &str)]) -> NamespaceRecord {
    NamespaceRecord { name: name(text), labels: labels(set) }
}

#[doc(hidden)]
pub async fn a_namespace_is_made_once(store: Store) {
    let cx = Context::background();
    store.create(&cx, record("one", &[("a", "1")])).await.expect("create");
    assert_eq!(store.labels(&cx, "one").await.expect("labels"), labels(&[("a", "1")]));
    refused(store.create(&cx, record("one", &[])).await, ErrorKind::AlreadyExists);
    let long = record("two", &[("key", &"x".repeat(4096))]);
    refused(store.create(&cx, long).await, ErrorKind::InvalidArgument);
}

#[doc(hidden)]
pub async fn a_missing_one_has_no_labels(store: Store) {
    for text in ["missing", "", "a--b"] {
        assert_eq!(store.labels(&Context::background(), text).await.expect("labels"), Labels::new());
    }
}

#[doc(hidden)]
pub async fn lists_come_in_order(store: Store) {
    let cx = Context::background();
    for text in ["c", "B", "a"] {
        store.create(&cx, record(text, &[("is", text)])).await.expect("create");
    }
    let listed = store.list(&cx).await.expect("list");
    assert_eq!(
        listed,
        [record("B", &[("is", "B")]), record("a", &[("is", "a")]), record("c", &[("is", "c")])]
    );
}

#[doc(hidden)]
pub async fn a_mask_names_one_label(store: Store) {
    let cx = Context::background();
    store.create(&cx, record("one", &[("a", "1"), ("b", "2")])).await.expect("create");
    store
        .update(&cx, record("one", &[("a", ""), ("c", "3")]), &mask(&["labels.a", "labels.c"]))
        .await
        .expect("update");
    assert_eq!(store.labels(&cx, "one").await.expect("labels"), labels(&[("b", "2"), ("c", "3")]));
    refused(store.update(&cx, record("one", &[]), &mask(&["labels"])).await, ErrorKind::InvalidArgument);
    store
        .update(&cx, record("new", &[("a", "1")]), &mask(&["labels.a"]))
        .await
        .expect("a missing one is made");
    assert_eq!(store.labels(&cx, "new").await.expect("labels"), labels(&[("a", "1")]));
}

#[doc(hidden)]
pub async fn without_mask_all_labels_are_replaced(store: Store) {
    let cx = Context::background();
    store.create(&cx, record("one", &[("a", "1"), ("b", "2")])).await.expect("create");
    store.update(&cx, record("one", &[("c", "3")]), &mask(&[])).await.expect("update");
    assert_eq!(store.labels(&cx, "one").await.expect("labels"), labels(&[("c", "3")]));
}

#[doc(hidden)]
pub async fn what_is_missing_cannot_be_deleted(store: Store) {
    let cx = Context::background();
    refused(store.delete(&cx, &name("one")).await, ErrorKind::NotFound);
    store.create(&cx, record("one", &[])).await.expect("create");
    store.delete(&cx, &name("one")).await.expect("delete");
    assert_eq!(store.list(&cx).await.expect("list"), []);
}
