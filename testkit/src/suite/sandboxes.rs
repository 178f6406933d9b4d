//! What every [`SandboxStore`] promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use gantry_core::containers::ContainerRuntime;
use gantry_core::sandboxes::{Sandbox, SandboxStore};
use gantry_core::{Any, Context, ErrorKind, SandboxId};

use super::{cx, filters, labels, mask, refused};

/// Tests that what `$open` opens keeps sandboxes as it should.
#[macro_export]
macro_rules! sandbox_store_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            sandboxes,
            $open,
            [
                create_answers_as_stored,
                a_taken_id_is_refused,
                required_fields_are_checked,
                labels_may_have_any_length,
                what_is_missing_is_not_found,
                lists_come_in_order_and_filtered,
                namespaces_are_apart,
                a_mask_changes_what_it_names,
                without_mask_all_is_replaced_but_what_never_changes,
            ]
        );
    };
}

type Store = Arc<dyn SandboxStore>;

fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        id: SandboxId::parse(id).expect("a valid id"),
        labels: labels(&[("a", "1")]),
        runtime: ContainerRuntime {
            name: "io.containerd.runc.v2".to_owned(),
            options: Some(Any::new("options", "{}")),
        },
        spec: Some(Any::new("spec", "{}")),
        sandboxer: "podsandbox".to_owned(),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
        extensions: BTreeMap::from([("e".to_owned(), Any::new("extension", "1"))]),
    }
}

#[doc(hidden)]
pub async fn create_answers_as_stored(store: Store) {
    let made = store.create(&cx("one"), sandbox("pod")).await.expect("create");
    assert_eq!(made.created_at, made.updated_at);
    assert!(made.created_at > SystemTime::UNIX_EPOCH, "the store sets the time");
    let wanted = Sandbox { created_at: made.created_at, updated_at: made.updated_at, ..sandbox("pod") };
    assert_eq!(made, wanted);
    assert_eq!(store.get(&cx("one"), "pod").await.expect("get"), made);
}

#[doc(hidden)]
pub async fn a_taken_id_is_refused(store: Store) {
    store.create(&cx("one"), sandbox("pod")).await.expect("create");
    refused(store.create(&cx("one"), sandbox("pod")).await, ErrorKind::AlreadyExists);
}

#[doc(hidden)]
pub async fn required_fields_are_checked(store: Store) {
    let mut bare =
        Sandbox { spec: None, sandboxer: String::new(), extensions: BTreeMap::new(), ..sandbox("pod") };
    // Unlike a container's. Source: containerd's answer.
    bare.runtime.name.clear();
    let made = store.create(&cx("one"), bare).await.expect("nothing is required but the id");
    assert_eq!((made.spec, made.sandboxer.as_str(), made.extensions.len()), (None, "", 0));
}

#[doc(hidden)]
pub async fn labels_may_have_any_length(store: Store) {
    let mut new = sandbox("pod");
    new.labels = labels(&[("key", &"x".repeat(5000)), ("empty", "")]);
    let made = store.create(&cx("one"), new).await.expect("create");
    assert_eq!(made.labels, labels(&[("key", &"x".repeat(5000))]), "an empty value is not stored");
}

#[doc(hidden)]
pub async fn what_is_missing_is_not_found(store: Store) {
    refused(store.get(&cx("one"), "pod").await, ErrorKind::NotFound);
    refused(store.delete(&cx("one"), "pod").await, ErrorKind::NotFound);
    refused(store.update(&cx("one"), sandbox("pod"), &mask(&["labels"])).await, ErrorKind::NotFound);
    store.create(&cx("one"), sandbox("pod")).await.expect("create");
    store.delete(&cx("one"), "pod").await.expect("delete");
    refused(store.get(&cx("one"), "pod").await, ErrorKind::NotFound);
    store.create(&cx("one"), sandbox("pod")).await.expect("the id is free again");
}

#[doc(hidden)]
pub async fn lists_come_in_order_and_filtered(store: Store) {
    for id in ["c", "B", "a", "a.b"] {
        let mut new = sandbox(id);
        new.labels = labels(&[("id", id)]);
        store.create(&cx("one"), new).await.expect("create");
    }
    let listed = async |texts: &[&str]| {
        let list = store.list(&cx("one"), &filters(texts)).await.expect("list");
        list.into_iter().map(|sandbox| sandbox.id.into_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).await, ["B", "a", "a.b", "c"]);
    assert_eq!(listed(&["id==a"]).await, ["a"]);
    assert_eq!(listed(&["labels.id==c", "id==B"]).await, ["B", "c"]);
    assert_eq!(listed(&["labels.none"]).await, [""; 0]);
    refused(store.list(&cx("one"), &filters(&["id=="])).await, ErrorKind::InvalidArgument);
}

#[doc(hidden)]
pub async fn namespaces_are_apart(store: Store) {
    store.create(&cx("one"), sandbox("pod")).await.expect("create");
    refused(store.get(&cx("two"), "pod").await, ErrorKind::NotFound);
    store.create(&cx("two"), sandbox("pod")).await.expect("ids are per namespace");
    store.delete(&cx("one"), "pod").await.expect("delete");
    store.get(&cx("two"), "pod").await.expect("the other one stays");
    assert_eq!(store.list(&cx("one"), &[]).await.expect("list"), []);
    refused(store.get(&Context::background(), "pod").await, ErrorKind::FailedPrecondition);
}

#[doc(hidden)]
pub async fn a_mask_changes_what_it_names(store: Store) {
    let before = store.create(&cx("one"), sandbox("pod")).await.expect("create");
    let mut changed = sandbox("pod");
    changed.labels = labels(&[("a", ""), ("b", "2"), ("c", "3")]);
    changed.spec = None;
    changed.extensions = BTreeMap::from([("f".to_owned(), Any::new("extension", "2"))]);
    changed.runtime.name = "other.v1".to_owned();
    let update = async |paths: &[&str]| store.update(&cx("one"), changed.clone(), &mask(paths)).await;
    let after = update(&["labels.b"]).await.expect("update");
    assert_eq!(after.labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!(
        (&after.spec, &after.extensions, &after.runtime),
        (&before.spec, &before.extensions, &before.runtime)
    );
    assert_eq!(after.created_at, before.created_at);
    assert!(after.updated_at >= before.updated_at);
    let after = update(&["labels.a", "extensions.f", "extensions.e"]).await.expect("update");
    assert_eq!(after.labels, labels(&[("b", "2")]), "an empty value removes");
    assert_eq!(after.extensions, changed.extensions, "what is not given is removed");
    let after = update(&["spec", "runtime"]).await.expect("update");
    assert_eq!((&after.spec, after.runtime.name.as_str()), (&None, "other.v1"));
    for path in ["sandboxer", "created_at", "id", ""] {
        refused(update(&[path]).await, ErrorKind::InvalidArgument);
    }
    assert_eq!(store.get(&cx("one"), "pod").await.expect("get"), after);
}

#[doc(hidden)]
pub async fn without_mask_all_is_replaced_but_what_never_changes(store: Store) {
    store.create(&cx("one"), sandbox("pod")).await.expect("create");
    let mut changed = sandbox("pod");
    changed.labels = labels(&[("new", "1")]);
    changed.spec = None;
    changed.extensions.clear();
    let after = store.update(&cx("one"), changed.clone(), &mask(&[])).await.expect("update");
    assert_eq!((after.labels, after.spec, after.extensions.len()), (labels(&[("new", "1")]), None, 0));
    changed.runtime.name = "other.v1".to_owned();
    refused(store.update(&cx("one"), changed, &mask(&[])).await, ErrorKind::InvalidArgument);
}
