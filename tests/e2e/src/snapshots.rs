//! `ctr snapshots`.

use std::fs;

use gantry_testkit::root;

use crate::stage::{BUSYBOX, Stage, same_on_both};

fn parent(s: &Stage) -> String {
    let names = s.ctr.names(&["snapshots", "ls"]);
    names.first().expect("the image's snapshot").clone()
}

#[test]
fn snapshots_are_prepared_committed_and_removed() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        s.table(&["snapshots", "ls"], &[]);
        let parent = parent(s);
        s.ok(&["snapshots", "info", &parent]);
        s.table(&["snapshots", "usage"], &[]);
        s.ok(&["snapshots", "prepare", "work", &parent]);
        s.any(&["snapshots", "prepare", "work", &parent]);
        s.any(&["snapshots", "prepare", "orphan", "sha256:0000"]);
        s.ok(&["snapshots", "view", "look", &parent]);
        s.table(&["snapshots", "ls"], &[]);
        s.any(&["snapshots", "rm", &parent]);
        s.ok(&["snapshots", "label", "work", "a=b"]);
        s.ok(&["snapshots", "info", "work"]);
        s.ok(&["snapshots", "commit", "done", "work"]);
        // 1.6 shows the key that it has inside, `default/4/look`.
        let refused = s.ctr.fails(&["snapshots", "commit", "done2", "look"]);
        for text in ["failed to commit snapshot: snapshot ", "look\" is not active: failed precondition"] {
            assert!(refused.contains(text), "{refused}");
        }
        s.any(&["snapshots", "info", "work"]);
        s.ok(&["snapshots", "info", "done"]);
        s.viewed(&["snapshots", "tree"], str::to_owned);
        s.ok(&["snapshots", "rm", "look"]);
        s.ok(&["snapshots", "rm", "done"]);
        s.any(&["snapshots", "rm", "done"]);
        s.table(&["snapshots", "ls"], &[]);
    });
}

#[test]
fn snapshots_are_mounted_by_the_client() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let parent = parent(s);
        let target = s.daemon.dir().join("mnt");
        fs::create_dir(&target).unwrap();
        s.ok(&["snapshots", "prepare", "work", &parent]);
        s.viewed(&["snapshots", "mounts", "/target", "work"], |text| {
            // The numbers of directories are the snapshotter's own; `index=off` comes first in 1.6 and last since 2.0.
            let text = text
                .split('/')
                .map(|part| if part.chars().all(|c| c.is_ascii_digit()) { "N" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            let (command, options) = text.trim_end().split_once(" -o ").expect("options");
            let mut options: Vec<&str> = options.split(',').collect();
            options.sort_unstable();
            format!("{command} -o {}", options.join(","))
        });
        let commands = s.ctr.ok(&["snapshots", "mounts", &target.to_string_lossy(), "work"]);
        let mounted =
            gantry_testkit::run(std::process::Command::new("/bin/sh").args(["-e", "-c", &commands]));
        mounted.expect_success("mount the snapshot");
        assert!(target.join("bin/busybox").exists());
        fs::write(target.join("new"), vec![7u8; 100_000]).unwrap();
        gantry_testkit::run(std::process::Command::new("umount").arg(&target)).expect_success("umount");
        s.table(&["snapshots", "usage", "work"], &[]);
        s.ok(&["snapshots", "commit", "done", "work"]);
        s.ok(&["snapshots", "view", "look", "done"]);
        let commands = s.ctr.ok(&["snapshots", "mounts", &target.to_string_lossy(), "look"]);
        gantry_testkit::run(std::process::Command::new("/bin/sh").args(["-e", "-c", &commands]))
            .expect_success("mount the view");
        assert_eq!(fs::metadata(target.join("new")).unwrap().len(), 100_000);
        assert!(fs::write(target.join("other"), "x").is_err(), "a view is read-only");
        gantry_testkit::run(std::process::Command::new("umount").arg(&target)).expect_success("umount");
        // containerd 1.6 can never remove the parent of a view that collection has removed.
        s.ok(&["snapshots", "rm", "look"]);
    });
}

#[test]
fn snapshots_are_compared() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        s.ok(&["run", "-d", BUSYBOX, "c1", "/bin/sh", "-c", "echo hello > /new; rm /etc/group; sleep 1000"]);
        gantry_testkit::eventually("the file to go", || {
            s.ctr
                .run(&["tasks", "exec", "--exec-id", "look", "c1", "/bin/test", "-e", "/etc/group"])
                .code
                .eq(&1)
                .then_some(())
        });
        let diff = gantry_testkit::run(std::process::Command::new("/bin/sh").args([
            "-c",
            &format!(
                "ctr --address {} snapshots diff c1 | zcat | tar -tf - | sort",
                s.daemon.address().display()
            ),
        ]));
        let listing = diff.expect_success("diff");
        assert!(listing.contains("new") && listing.contains("etc/.wh.group"), "{listing}");
        s.ok(&["tasks", "kill", "-s", "9", "c1"]);
    });
}

#[test]
fn snapshotters_that_nobody_has_are_named_in_the_refusal() {
    root!();
    same_on_both(|s, _| {
        let refused = s.ctr.fails(&["snapshots", "--snapshotter", "imaginary", "ls"]);
        assert!(refused.contains("snapshotter") && refused.contains("imaginary"), "{refused}");
    });
}
