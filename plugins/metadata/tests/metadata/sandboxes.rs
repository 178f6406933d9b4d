use std::collections::BTreeMap;
use std::time::SystemTime;

use gantry_core::containers::ContainerRuntime;
use gantry_core::field_mask::FieldMask;
use gantry_core::sandboxes::{Sandbox, SandboxStore};
use gantry_core::{Any, ErrorKind, Labels, SandboxId};

use crate::support::{World, cx, labels};

fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        id: SandboxId::parse(id).unwrap(),
        labels: Labels::new(),
        runtime: ContainerRuntime { name: "runtime".into(), options: None },
        spec: None,
        sandboxer: "podsandbox".into(),
        created_at: SystemTime::UNIX_EPOCH,
        updated_at: SystemTime::UNIX_EPOCH,
        extensions: BTreeMap::new(),
    }
}

#[tokio::test]
async fn sandboxes_are_stored_updated_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let sandboxes = world.metadata.sandboxes();
    let mut new = sandbox("b");
    // The length of labels is not looked at here.
    new.labels = labels(&[("long", &"v".repeat(5000)), ("keep", "1")]);
    let made = sandboxes.create(&cx("n"), new).await.unwrap();
    assert_eq!(sandboxes.get(&cx("n"), "b").await.unwrap(), made);
    assert_eq!(sandboxes.create(&cx("n"), sandbox("b")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let mut nameless = sandbox("c");
    nameless.runtime.name.clear();
    sandboxes.create(&cx("n"), nameless).await.expect("a runtime needs no name");
    sandboxes.delete(&cx("n"), "c").await.unwrap();

    let mut changed = sandbox("b");
    changed.labels = labels(&[("long", ""), ("new", "2")]);
    changed.spec = Some(Any::new("spec", "{}"));
    changed.extensions.insert("e".into(), Any::new("t", "v"));
    let mask = FieldMask::new(["labels.long", "labels.new", "spec", "extensions.e"]);
    let updated = sandboxes.update(&cx("n"), changed.clone(), &mask).await.unwrap();
    assert_eq!(updated.labels, labels(&[("keep", "1"), ("new", "2")]));
    assert_eq!((&updated.spec, &updated.extensions), (&changed.spec, &changed.extensions));
    assert_eq!(sandboxes.get(&cx("n"), "b").await.unwrap(), updated);
    let refused =
        sandboxes.update(&cx("n"), changed.clone(), &FieldMask::new(["sandboxer"])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    changed.runtime.name = "another".into();
    let refused = sandboxes.update(&cx("n"), changed.clone(), &FieldMask::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let updated = sandboxes.update(&cx("n"), changed, &FieldMask::new(["runtime"])).await.unwrap();
    assert_eq!(updated.runtime.name, "another");

    sandboxes.create(&cx("n"), sandbox("a")).await.unwrap();
    let ids: Vec<_> =
        sandboxes.list(&cx("n"), &[]).await.unwrap().into_iter().map(|s| s.id.into_string()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(sandboxes.list(&cx("n"), &["id==a".to_owned()]).await.unwrap().len(), 1);
    sandboxes.delete(&cx("n"), "b").await.unwrap();
    assert_eq!(sandboxes.delete(&cx("n"), "b").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sandboxes.get(&cx("n"), "b").await.unwrap_err().kind(), ErrorKind::NotFound);
}
