//! What uses active mounts: file systems in files, layers, tasks; and what a crash leaves of them.

use std::path::{Path, PathBuf};

use gantry_api::containerd::services::diff::v1::ApplyRequest;
use gantry_api::containerd::services::diff::v1::diff_client::DiffClient;
use gantry_api::containerd::services::snapshots::v1::MountsRequest;
use gantry_api::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, StartRequest, WaitRequest,
};
use gantry_api::containerd::types::{Descriptor, Mount};
use gantry_testkit::{Compression, ImageBuilder, Tar, busybox_image, eventually, root};
use tonic::Code;

use crate::mounts::{activate, deactivate, list, mount, mounted};
use crate::support::{TEST, Wire, code, in_test};

/// The device that the symlink at a mount point leads to, as the kernel lists it.
fn device(point: &str) -> PathBuf {
    let device = std::fs::read_link(point).unwrap();
    Path::new("/sys/block").join(device.file_name().unwrap())
}

#[tokio::test]
async fn a_file_system_is_made_once_attached_and_mounted() {
    root!();
    let wire = Wire::start();
    if !wire.is_gantry() {
        return; // containerd documents the type `loop`, and has no handler for it.
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = wire.daemon.root().join("disk.img").display().to_string();
    let lower = dir.path().join("lower");
    std::fs::create_dir(&lower).unwrap();
    std::fs::write(lower.join("below"), "x").unwrap();
    let mounts = || {
        vec![
            mount("mkfs/loop", &disk, &["X-containerd.mkfs.size=32MiB", "X-containerd.mkfs.fs=ext4"]),
            mount("format/ext4", "{{ mount 0 }}", &[]),
            mount(
                "format/mkdir/overlay",
                "overlay",
                &[
                    "X-containerd.mkdir.path={{ mount 1 }}/upper:0755",
                    "X-containerd.mkdir.path={{ mount 1 }}/work:0755",
                    &format!("lowerdir={}", lower.display()),
                    "upperdir={{ mount 1 }}/upper",
                    "workdir={{ mount 1 }}/work",
                ],
            ),
        ]
    };
    let place = dir.path().join("place");
    std::fs::create_dir(&place).unwrap();
    for round in 0..2 {
        let made = activate(&wire, "m", mounts()).await.unwrap();
        let block = device(&made.active[0].mount_point);
        assert!(block.join("loop/backing_file").exists());
        assert_eq!(made.system.len(), 1);
        let system = gantry_core::mount::Mount {
            kind: made.system[0].r#type.clone(),
            source: made.system[0].source.clone(),
            target: String::new(),
            options: made.system[0].options.clone(),
        };
        gantry_mount::mount_all(std::slice::from_ref(&system), &place).unwrap();
        assert!(place.join("below").exists());
        assert_eq!(place.join("written").exists(), round == 1, "the file system is made once");
        std::fs::write(place.join("written"), "y").unwrap();
        gantry_mount::unmount_all(&place, gantry_mount::Busy::Wait).unwrap();
        deactivate(&wire, "m").await.unwrap();
        assert!(mounted(&wire).is_empty());
        eventually("the device to let go", || (!block.join("loop/backing_file").exists()).then_some(()));
    }
    let size = ["X-containerd.mkfs.size=x"];
    let refused = activate(&wire, "m", vec![mount("mkfs/loop", &disk, &size)]).await;
    assert_eq!(code(refused), Code::InvalidArgument);
}

#[tokio::test]
async fn a_layer_is_applied_to_mounts_that_need_a_manager() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
        dir.path().join(name).display().to_string()
    };
    let mounts = vec![
        mount("bind", &path("lower"), &["rbind", "ro"]),
        mount(
            "format/overlay",
            "overlay",
            &[
                &format!("workdir={}", path("work")),
                &format!("upperdir={}", path("upper")),
                "lowerdir={{ mount 0 }}",
            ],
        ),
    ];
    let image = ImageBuilder::new().layer(Tar::new().file("made", 0o644, "x"), Compression::None).build();
    let archive = wire.daemon.dir().join("image.tar");
    image.write_oci_archive(&archive, "layer");
    wire.daemon.ctr().in_namespace(TEST).ok(&["images", "import", "--no-unpack", &archive.to_string_lossy()]);
    let layer = image.blobs().find(|blob| blob.media_type.contains("tar")).unwrap();
    let descriptor = Descriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest.clone(),
        size: layer.bytes.len() as i64,
        ..Default::default()
    };
    let request = ApplyRequest { diff: Some(descriptor), mounts, ..Default::default() };
    DiffClient::new(wire.channel.clone()).apply(in_test(request)).await.unwrap();
    assert!(dir.path().join("upper/made").exists());
    assert!(list(&wire, TEST, &[]).await.unwrap().is_empty());
    assert!(mounted(&wire).is_empty());
}

#[tokio::test]
async fn a_tasks_root_is_activated_for_it_and_deactivated_with_it() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let ctr = wire.daemon.ctr().in_namespace(TEST);
    let archive = wire.daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, "busybox");
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    ctr.ok(&["containers", "create", "busybox", "c", "/bin/true"]);
    let request = MountsRequest { snapshotter: "overlayfs".into(), key: "c".into() };
    let given: Mount = wire.snapshots().mounts(in_test(request)).await.unwrap().into_inner().mounts.remove(0);
    let lower = given.options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap();
    let formatted = given.options.iter().map(|option| match option.strip_prefix("lowerdir=") {
        Some(_) => "lowerdir={{ mount 0 }}".to_owned(),
        None => option.clone(),
    });
    let formatted: Vec<String> = formatted.collect();
    let formatted: Vec<&str> = formatted.iter().map(String::as_str).collect();
    let rootfs = vec![mount("bind", lower, &["rbind", "ro"]), mount("format/overlay", "overlay", &formatted)];
    let create = CreateTaskRequest { container_id: "c".into(), rootfs, ..Default::default() };
    wire.tasks().create(in_test(create)).await.unwrap();
    assert_eq!(list(&wire, TEST, &[]).await.unwrap(), ["c"]);
    wire.collect().await;
    assert_eq!(list(&wire, TEST, &[]).await.unwrap(), ["c"], "kept as long as the container");
    wire.tasks()
        .start(in_test(StartRequest { container_id: "c".into(), ..Default::default() }))
        .await
        .unwrap();
    let wait = WaitRequest { container_id: "c".into(), ..Default::default() };
    assert_eq!(wire.tasks().wait(in_test(wait)).await.unwrap().into_inner().exit_status, 0);
    wire.tasks().delete(in_test(DeleteTaskRequest { container_id: "c".into() })).await.unwrap();
    assert!(list(&wire, TEST, &[]).await.unwrap().is_empty());
    let targets = wire.daemon.state().join("io.containerd.mount-manager.v1.bolt");
    assert!(!mounted(&wire).iter().any(|point| Path::new(point).starts_with(&targets)));
}

#[tokio::test]
async fn a_task_that_cannot_be_made_leaves_no_mounts() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    wire.container("c", &[]).await;
    let rootfs = vec![
        mount("bind", "/proc", &["rbind"]),
        mount("format/overlay", "overlay", &["lowerdir={{ mount 0 }}"]),
    ];
    let create = CreateTaskRequest { container_id: "c".into(), rootfs, ..Default::default() };
    assert_ne!(code(wire.tasks().create(in_test(create)).await), Code::Ok);
    assert!(list(&wire, TEST, &[]).await.unwrap().is_empty());
    assert!(mounted(&wire).is_empty());
}

#[tokio::test]
async fn mounts_without_record_are_unmounted_at_the_start() {
    root!();
    let mut wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    wire.daemon.stop();
    // As a crash between mounting and noting it would leave it, and an activation of a lost database.
    let targets = wire.daemon.state().join("io.containerd.mount-manager.v1.bolt/t");
    for (name, kind) in [("7/1", Some("bind")), ("8/2", None), ("1/1", Some("bind"))] {
        let point = targets.join(name);
        std::fs::create_dir_all(&point).unwrap();
        if let Some(kind) = kind {
            std::fs::write(format!("{}-type", point.display()), kind).unwrap();
        }
        let bind = gantry_core::mount::Mount {
            kind: "bind".into(),
            source: "/proc".into(),
            target: String::new(),
            options: vec!["rbind".into()],
        };
        gantry_mount::mount(&bind, &point).unwrap();
    }
    if wire.is_gantry() {
        // Where containerd's records are, its mounts are left to it.
        let foreign = targets.with_file_name("mounts.db");
        std::fs::write(&foreign, "").unwrap();
        wire.restart();
        wire.collect().await;
        assert!(!mounted(&wire).is_empty());
        wire.daemon.stop();
        std::fs::remove_file(&foreign).unwrap();
    }
    wire.daemon.start();
    wire.reconnect();
    wire.collect().await;
    eventually("everything to be unmounted", || mounted(&wire).is_empty().then_some(()));
    eventually("the directories to go", || {
        std::fs::read_dir(&targets).unwrap().next().is_none().then_some(())
    });
}
