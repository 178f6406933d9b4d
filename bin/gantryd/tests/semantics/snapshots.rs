//! Snapshots.

use gantry_api::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, ViewSnapshotRequest,
};
use gantry_api::containerd::types::Mount;
use gantry_testkit::root;
use tonic::{Code, Status};

use crate::support::{Wire, code, in_test, mask, pairs, refused, with, within};

async fn view(wire: &Wire, snapshotter: &str, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
    let request = ViewSnapshotRequest {
        snapshotter: snapshotter.into(),
        key: key.into(),
        parent: parent.into(),
        ..Default::default()
    };
    wire.snapshots().view(in_test(request)).await.map(|answer| answer.into_inner().mounts)
}

async fn mounts(wire: &Wire, key: &str) -> Result<Vec<Mount>, Status> {
    let request = MountsRequest { snapshotter: "native".into(), key: key.into() };
    wire.snapshots().mounts(in_test(request)).await.map(|answer| answer.into_inner().mounts)
}

async fn remove(wire: &Wire, key: &str) -> Result<(), Status> {
    let request = RemoveSnapshotRequest { snapshotter: "native".into(), key: key.into() };
    wire.snapshots().remove(in_test(request)).await.map(drop)
}

#[tokio::test]
async fn labels_of_prepare_are_not_carried_to_the_committed_snapshot() {
    root!();
    let wire = Wire::start();
    wire.prepare("native", "k", "", &[("a", "1"), ("b", "1"), ("empty", "")]).await.unwrap();
    assert_eq!(wire.stat("k").await.unwrap().labels, pairs(&[("a", "1"), ("b", "1")]));
    wire.commit("native", "n", "k", &[("b", "2")]).await.unwrap();
    assert_eq!(wire.stat("n").await.unwrap().labels, pairs(&[("b", "2")]));
    assert!(!wire.has_snapshot("k").await);
}

#[tokio::test]
async fn what_a_snapshot_cannot_do_has_its_code() {
    root!();
    let wire = Wire::start();
    wire.prepare("native", "base", "", &[]).await.unwrap();
    wire.commit("native", "committed", "base", &[]).await.unwrap();
    wire.prepare("native", "active", "committed", &[]).await.unwrap();
    view(&wire, "native", "view", "committed").await.unwrap();
    for parent in ["active", "view"] {
        assert_eq!(code(wire.prepare("native", "x", parent, &[]).await), Code::InvalidArgument, "{parent}");
        assert_eq!(code(view(&wire, "native", "x", parent).await), Code::InvalidArgument, "{parent}");
    }
    assert_eq!(code(wire.prepare("native", "x", "absent", &[]).await), Code::NotFound);
    assert_eq!(code(wire.commit("native", "x", "committed", &[]).await), Code::FailedPrecondition);
    // 1.6 has no code for this one.
    let is_a_view = if wire.since_2() { Code::FailedPrecondition } else { Code::Unknown };
    assert_eq!(code(wire.commit("native", "x", "view", &[]).await), is_a_view);
    assert_eq!(code(wire.commit("native", "active", "active", &[]).await), Code::AlreadyExists);
    assert_eq!(code(wire.commit("native", "committed", "active", &[]).await), Code::AlreadyExists);
    assert_eq!(code(wire.commit("native", "x", "absent", &[]).await), Code::NotFound);
    assert_eq!(code(remove(&wire, "committed").await), Code::FailedPrecondition);
    assert_eq!(code(mounts(&wire, "committed").await), Code::FailedPrecondition);
    assert_eq!(code(mounts(&wire, "absent").await), Code::NotFound);
    for key in ["active", "view", "committed"] {
        remove(&wire, key).await.unwrap();
    }
}

#[tokio::test]
async fn a_view_needs_no_parent() {
    root!();
    let wire = Wire::start();
    view(&wire, "native", "v", "").await.unwrap();
    let info = wire.stat("v").await.unwrap();
    assert_eq!((info.kind(), &*info.parent), (Kind::View, ""));
}

#[tokio::test]
async fn keys_are_per_namespace() {
    root!();
    let wire = Wire::start();
    let other = |key: &str, parent: &str| {
        let (snapshotter, key, parent) = ("native".into(), key.into(), parent.into());
        within("other", PrepareSnapshotRequest { snapshotter, key, parent, ..Default::default() })
    };
    wire.prepare("native", "k", "", &[]).await.unwrap();
    wire.snapshots().prepare(other("k", "")).await.unwrap();
    wire.commit("native", "n", "k", &[]).await.unwrap();
    assert_eq!(code(wire.snapshots().prepare(other("x", "n")).await), Code::NotFound);
}

#[tokio::test]
async fn a_label_that_names_a_committed_snapshot_skips_the_prepare() {
    root!();
    let wire = Wire::start();
    let label = [("containerd.io/snapshot.ref", "n")];
    wire.prepare("native", "k", "", &label).await.expect("there is none yet");
    wire.commit("native", "n", "k", &[]).await.unwrap();
    assert_eq!(code(wire.prepare("native", "x", "", &label).await), Code::AlreadyExists);
    assert!(!wire.has_snapshot("x").await);
}

#[tokio::test]
async fn a_commit_with_a_parent_rebases() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return; // 1.6 ignores the field, which is newer.
    }
    wire.prepare("overlayfs", "base", "", &[]).await.unwrap();
    wire.commit("overlayfs", "parent", "base", &[]).await.unwrap();
    wire.prepare("overlayfs", "k", "", &[]).await.unwrap();
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".into(),
        name: "n".into(),
        key: "k".into(),
        parent: "parent".into(),
        ..Default::default()
    };
    wire.snapshots().commit(in_test(request)).await.unwrap();
    let request = StatSnapshotRequest { snapshotter: "overlayfs".into(), key: "n".into() };
    let answer = wire.snapshots().stat(in_test(request)).await.unwrap();
    assert_eq!(answer.into_inner().info.unwrap().parent, "parent");
}

#[tokio::test]
async fn overlayfs_binds_a_single_layer_and_stacks_several_in_a_known_order() {
    root!();
    let wire = Wire::start();
    let bottom = wire.prepare("overlayfs", "a", "", &[]).await.unwrap();
    assert_eq!((bottom.len(), &*bottom[0].r#type), (1, "bind"));
    assert_eq!(bottom[0].options, ["rw", "rbind"]);
    wire.commit("overlayfs", "one", "a", &[]).await.unwrap();
    let one = view(&wire, "overlayfs", "v", "one").await.unwrap();
    assert_eq!((&*one[0].r#type, &one[0].source), ("bind", &bottom[0].source));
    assert_eq!(one[0].options, ["ro", "rbind"]);
    let active = wire.prepare("overlayfs", "b", "one", &[]).await.unwrap();
    assert_eq!((active.len(), &*active[0].r#type), (1, "overlay"));
    let names = active[0].options.iter().map(|option| option.split('=').next().unwrap());
    let names: Vec<&str> = names.filter(|name| !["userxattr", "volatile"].contains(name)).collect();
    let order = ["workdir", "upperdir", "lowerdir", "index"];
    // 1.6 begins with index=off.
    let old = ["index", "workdir", "upperdir", "lowerdir"];
    assert_eq!(names, if wire.since_2() { order } else { old });
    assert!(active[0].options.contains(&format!("lowerdir={}", bottom[0].source)));
}

#[tokio::test]
async fn native_binds_with_its_own_order_of_options() {
    root!();
    let wire = Wire::start();
    let made = wire.prepare("native", "k", "", &[]).await.unwrap();
    assert_eq!(made[0].options, ["rbind", "rw"]);
    let seen = view(&wire, "native", "v", "").await.unwrap();
    assert_eq!(seen[0].options, ["rbind", "ro"]);
}

#[tokio::test]
async fn cleanup_is_unimplemented() {
    root!();
    let wire = Wire::start();
    let request = || CleanupRequest { snapshotter: "overlayfs".into() };
    assert_eq!(code(wire.snapshots().cleanup(in_test(request())).await), Code::Unimplemented);
    assert_eq!(code(wire.snapshots().cleanup(with(&[], request())).await), Code::Unimplemented);
}

#[tokio::test]
async fn an_update_replaces_the_labels_or_those_its_mask_names() {
    root!();
    let wire = Wire::start();
    wire.prepare("native", "k", "", &[("a", "1"), ("b", "2")]).await.unwrap();
    let update = async |labels: &[(&str, &str)], paths| {
        let info = Some(Info { name: "k".into(), labels: pairs(labels), ..Default::default() });
        let request = UpdateSnapshotRequest { snapshotter: "native".into(), info, update_mask: paths };
        let answer = wire.snapshots().update(in_test(request)).await?;
        Ok::<_, Status>(answer.into_inner().info.unwrap().labels)
    };
    let one = update(&[("a", "3"), ("b", "3")], mask(&["labels.a"])).await.unwrap();
    assert_eq!(one, pairs(&[("a", "3"), ("b", "2")]));
    assert_eq!(update(&[("c", "4")], mask(&["labels"])).await.unwrap(), pairs(&[("c", "4")]));
    assert_eq!(update(&[("d", "5"), ("e", "")], None).await.unwrap(), pairs(&[("d", "5")]));
    for path in ["parent", "kind", "name"] {
        assert_eq!(code(update(&[], mask(&[path])).await), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn an_absent_info_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    let request = UpdateSnapshotRequest { snapshotter: "native".into(), ..Default::default() };
    refused(wire.snapshots().update(in_test(request)).await, Code::InvalidArgument, "\"info\"");
}
