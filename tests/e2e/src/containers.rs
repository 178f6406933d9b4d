//! `ctr containers`.

use gantry_testkit::root;

use crate::stage::{BUSYBOX, same_on_both};

#[test]
fn containers_are_made_shown_labelled_and_removed() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        s.ok(&["containers", "create", "--label", "x=y", "--env", "A=b", BUSYBOX, "c1", "/bin/sleep", "5"]);
        s.any(&["containers", "create", BUSYBOX, "c1"]);
        s.any(&["containers", "create", BUSYBOX, "c--1"]);
        s.table(&["containers", "ls"], &[]);
        let info = s.ok(&["containers", "info", "c1"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["ID"], "c1");
        assert_eq!(info["Image"], BUSYBOX);
        assert_eq!(info["Snapshotter"], "overlayfs");
        assert_eq!(info["Spec"]["process"]["args"][0], "/bin/sleep");
        s.ok(&["containers", "info", "--spec", "c1"]);
        s.ok(&["containers", "label", "c1", "x=z", "new=1"]);
        s.table(&["containers", "ls", "labels.x==z"], &[]);
        s.table(&["containers", "ls", "-q", "labels.x==y"], &[]);
        s.ok(&["containers", "label", "c1", "x="]);
        s.viewed(&["containers", "info", "c1"], |text| {
            let info: serde_json::Value = serde_json::from_str(text).unwrap();
            info["Labels"].to_string()
        });
        s.table(&["snapshots", "ls"], &[]);
        s.ok(&["containers", "rm", "c1"]);
        s.any(&["containers", "rm", "c1"]);
        s.any(&["containers", "info", "c1"]);
        s.table(&["containers", "ls"], &[]);
        s.table(&["snapshots", "ls"], &[]);
    });
}

#[test]
fn containers_keep_their_snapshot_when_asked() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        s.ok(&["containers", "create", BUSYBOX, "c1", "/bin/true"]);
        // Without a reference of the container's, only a label keeps it from collection.
        s.ok(&["snapshots", "label", "c1", "containerd.io/gc.root=yes"]);
        s.ok(&["containers", "rm", "--keep-snapshot", "c1"]);
        let listed = s.table(&["snapshots", "ls"], &[]);
        assert!(listed.lines().any(|line| line.starts_with("c1 ")), "{listed}");
        s.ok(&["snapshots", "rm", "c1"]);
    });
}
