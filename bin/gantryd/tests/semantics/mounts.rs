//! Mount lists with steps that the kernel does not know, which 1.6 does not have.

use std::path::Path;

use gantry_api::containerd::services::mounts::v1::mounts_client::MountsClient;
use gantry_api::containerd::services::mounts::v1::{
    ActivateRequest, DeactivateRequest, InfoRequest, ListRequest, UpdateRequest,
};
use gantry_api::containerd::types::{ActivationInfo, Mount};
use gantry_testkit::root;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::{Wire, code, in_test, is_there, leased, mask, pairs, refused, within};

pub(crate) fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount { r#type: kind.into(), source: source.into(), target: String::new(), options }
}

/// An activation of two mounts: a bind of `dir`, and one that is told where that is.
fn bound(name: &str, dir: &Path, labels: &[(&str, &str)]) -> ActivateRequest {
    let mounts = vec![
        mount("bind", &dir.display().to_string(), &["rbind", "ro"]),
        mount("format/overlay", "overlay", &["lowerdir={{ mount 0 }}:/proc"]),
    ];
    ActivateRequest { name: name.into(), mounts, labels: pairs(labels), temporary: false }
}

fn client(wire: &Wire) -> MountsClient<Channel> {
    MountsClient::new(wire.channel.clone())
}

async fn activate_by(
    wire: &Wire,
    headers: impl FnOnce(ActivateRequest) -> Request<ActivateRequest>,
    request: ActivateRequest,
) -> Result<ActivationInfo, Status> {
    client(wire).activate(headers(request)).await.map(|answer| answer.into_inner().info.unwrap())
}

pub(crate) async fn activate(wire: &Wire, name: &str, mounts: Vec<Mount>) -> Result<ActivationInfo, Status> {
    let request = ActivateRequest { name: name.into(), mounts, ..Default::default() };
    activate_by(wire, in_test, request).await
}

async fn info(wire: &Wire, name: &str) -> Result<ActivationInfo, Status> {
    let answer = client(wire).info(in_test(InfoRequest { name: name.into() })).await?;
    Ok(answer.into_inner().info.unwrap())
}

pub(crate) async fn deactivate(wire: &Wire, name: &str) -> Result<(), Status> {
    client(wire).deactivate(in_test(DeactivateRequest { name: name.into() })).await.map(drop)
}

/// The names in a namespace.
pub(crate) async fn list(wire: &Wire, namespace: &str, filters: &[&str]) -> Result<Vec<String>, Status> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let mut messages = client(wire).list(within(namespace, ListRequest { filters })).await?.into_inner();
    let mut names = Vec::new();
    while let Some(message) = messages.message().await? {
        names.push(message.info.unwrap().name);
    }
    Ok(names)
}

/// What is mounted below the daemon's state directory.
pub(crate) fn mounted(wire: &Wire) -> Vec<String> {
    let state = wire.daemon.state().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
    points.filter(|point| point.starts_with(&state)).collect()
}

#[tokio::test]
async fn a_list_that_the_kernel_can_mount_is_left_to_the_client() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    for mounts in [
        vec![],
        vec![mount("bind", "/proc", &["rbind"])],
        vec![mount("no such type", "x", &[]), mount("overlay", "overlay", &[])],
        vec![mount("nothing/ext4", "x", &[])],
    ] {
        assert_eq!(code(activate(&wire, "m", mounts).await), Code::Unimplemented);
    }
    assert!(list(&wire, "test", &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_formatted_mount_is_told_where_those_before_it_are() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let made = activate_by(&wire, in_test, bound("m", dir.path(), &[("a", "b"), ("e", "")])).await.unwrap();
    assert_eq!((made.name.as_str(), made.active.len(), made.system.len()), ("m", 1, 1));
    let active = &made.active[0];
    assert_eq!(active.mount.as_ref().unwrap().r#type, "bind");
    let targets = wire.daemon.state().join("io.containerd.mount-manager.v1.bolt/t");
    assert_eq!(Path::new(&active.mount_point), targets.join("1/1"));
    assert_eq!(std::fs::read_to_string(targets.join("1/1-type")).unwrap(), "bind");
    assert!(Path::new(&active.mount_point).join("file").exists());
    assert!(active.mounted_at.is_some());
    assert_eq!(
        made.system[0],
        mount("overlay", "overlay", &[&format!("lowerdir={}:/proc", active.mount_point)])
    );

    let found = info(&wire, "m").await.unwrap();
    if wire.is_gantry() {
        // containerd remembers it since 2.3.
        assert_eq!(found.system, made.system);
    }
    assert_eq!(found.active[0].mount_point, active.mount_point);
    assert_eq!(found.labels, pairs(&[("a", "b")]), "an empty value is not stored");
    // The code has been so in containerd since 2.3.
    let taken = if wire.is_gantry() { Code::AlreadyExists } else { Code::Unknown };
    assert_eq!(code(activate_by(&wire, in_test, bound("m", dir.path(), &[])).await), taken);
    activate_by(&wire, |r| within("other", r), bound("m", dir.path(), &[])).await.unwrap();
    assert_eq!(mounted(&wire).len(), 2);

    deactivate(&wire, "m").await.unwrap();
    assert_eq!(mounted(&wire).len(), 1);
    assert!(!targets.join("1").exists());
    assert!(!is_there(info(&wire, "m").await));
    assert_eq!(code(deactivate(&wire, "m").await), Code::NotFound);
}

#[tokio::test]
async fn a_temporary_list_is_mounted_whole_and_answered_as_a_bind() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounts = vec![mount("bind", &dir.path().display().to_string(), &["rbind"])];
    let request = ActivateRequest { name: "m".into(), mounts, temporary: true, ..Default::default() };
    let made = activate_by(&wire, in_test, request).await.unwrap();
    assert_eq!(made.active.len(), 1);
    assert_eq!(made.system, [mount("bind", &made.active[0].mount_point, &["rbind"])]);
    let request = ActivateRequest { name: "none".into(), temporary: true, ..Default::default() };
    assert_eq!(code(activate_by(&wire, in_test, request).await), Code::Unimplemented);
    if wire.is_gantry() {
        // containerd ends there.
        let again = mount("format/bind", "{{ mount 0 }}", &["rbind"]);
        let mounts = vec![mount("bind", &dir.path().display().to_string(), &["rbind"]), again];
        let name = "formatted".into();
        let request = ActivateRequest { name, mounts, temporary: true, ..Default::default() };
        let made = activate_by(&wire, in_test, request).await.unwrap();
        assert_eq!((made.active.len(), made.system[0].source.as_str()), (2, &*made.active[1].mount_point));
    }
}

#[tokio::test]
async fn what_fails_leaves_nothing_and_frees_the_name() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bind = || mount("bind", &dir.path().display().to_string(), &["rbind"]);
    let formatted = |option: &str| vec![bind(), mount("format/overlay", "overlay", &[option])];
    refused(activate(&wire, "m", formatted("{{ mount 1 }}")).await, Code::Unknown, "index out of bounds: 1");
    refused(activate(&wire, "m", formatted("{{ mount")).await, Code::Unknown, "");
    refused(activate(&wire, "m", formatted("{{ exec 0 }}")).await, Code::Unknown, "not defined");
    refused(activate(&wire, "", formatted("{{ mount 0 }}")).await, Code::Unknown, "bucket name required");
    let missing = vec![mount("bind", "/no/such/dir", &["rbind"]), mount("format/overlay", "o", &[])];
    assert_ne!(code(activate(&wire, "m", missing).await), Code::Ok);
    let elsewhere = ["X-containerd.mkdir.path=/etc/gantry-was-here"];
    let elsewhere = vec![bind(), mount("mkdir/overlay", "overlay", &elsewhere)];
    refused(activate(&wire, "m", elsewhere).await, Code::Unimplemented, "no root");
    assert!(!is_there(info(&wire, "m").await));
    activate(&wire, "m", formatted("{{ mount 0 }}")).await.unwrap();
}

#[tokio::test]
async fn directories_are_made_below_the_daemons_root() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let upper = wire.daemon.root().join("made");
    let option = format!("X-containerd.mkdir.path={}:0755", upper.display());
    let mounts = vec![mount("mkdir/overlay", "overlay", &[&option, "index=off"])];
    let made = activate(&wire, "m", mounts).await.unwrap();
    assert!(made.active.is_empty());
    assert_eq!(made.system, [mount("overlay", "overlay", &["index=off"])]);
    assert!(upper.is_dir());
    assert!(is_there(info(&wire, "m").await));
}

#[tokio::test]
async fn an_update_is_unimplemented_and_a_list_ignores_filters() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "a b/c", "a"] {
        activate_by(&wire, in_test, bound(name, dir.path(), &[])).await.unwrap();
    }
    let update = |info| UpdateRequest { info, update_mask: mask(&["labels"]) };
    let found = info(&wire, "a").await.unwrap();
    for info in [Some(found), None] {
        assert_eq!(code(client(&wire).update(in_test(update(info))).await), Code::Unimplemented);
    }
    for filters in [&[][..], &["name==x"], &["a/b==c"]] {
        assert_eq!(list(&wire, "test", filters).await.unwrap(), ["a", "a b/c", "b"], "{filters:?}");
    }
    assert!(list(&wire, "other", &[]).await.unwrap().is_empty());
    let without = client(&wire).info(Request::new(InfoRequest { name: "a".into() })).await;
    assert_eq!(code(without), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_mount_lives_as_long_as_its_lease_or_what_it_points_back_at() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    wire.lease("l", &[]).await;
    wire.container("c", &[("containerd.io/gc.ref.mount.x", "named")]).await;
    let digest = wire.blob("blob", &[("containerd.io/gc.root", "x")]).await;
    wire.image("i", &digest, &[]).await;
    wire.prepare("native", "k", "", &[]).await.unwrap();
    wire.commit("native", "s", "k", &[("containerd.io/gc.root", "x")]).await.unwrap();
    for (name, key, value) in [
        ("of container", "containerd.io/gc.bref.container", "c"),
        ("of image", "containerd.io/gc.bref.image.x", "i"),
        ("of content", "containerd.io/gc.bref.content/x", digest.as_str()),
        ("of snapshot", "containerd.io/gc.bref.snapshot.native/x", "s"),
        ("of nobody", "containerd.io/gc.bref.container", "absent"),
        ("named", "x", "y"),
        ("free", "containerd.io/gc.root", "counts not"),
    ] {
        activate_by(&wire, in_test, bound(name, dir.path(), &[(key, value)])).await.unwrap();
    }
    activate_by(&wire, |r| leased("l", r), bound("leased", dir.path(), &[])).await.unwrap();
    activate_by(&wire, |r| leased("absent", r), bound("of no lease", dir.path(), &[])).await.unwrap();
    wire.collect().await;
    let kept = ["leased", "named", "of container", "of content", "of image", "of snapshot"];
    assert_eq!(list(&wire, "test", &[]).await.unwrap(), kept);
    gantry_testkit::eventually("the others to be unmounted", || (mounted(&wire).len() == 6).then_some(()));
    wire.release("l").await;
    assert!(!is_there(info(&wire, "leased").await));
}

#[tokio::test]
async fn mounts_are_found_again_after_a_restart() {
    root!();
    let mut wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    wire.lease("l", &[]).await;
    let made = activate_by(&wire, |r| leased("l", r), bound("m", dir.path(), &[])).await.unwrap();
    wire.daemon.kill();
    wire.restart();
    assert_eq!(info(&wire, "m").await.unwrap().active[0].mount_point, made.active[0].mount_point);
    assert_eq!(mounted(&wire).len(), 1);
    wire.release("l").await;
    assert!(!is_there(info(&wire, "m").await));
    gantry_testkit::eventually("it to be unmounted", || mounted(&wire).is_empty().then_some(()));
}
