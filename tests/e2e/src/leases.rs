//! `ctr leases`.

use gantry_testkit::root;

use crate::stage::same_on_both;

#[test]
fn leases_are_made_listed_and_removed() {
    root!();
    same_on_both(|s, _| {
        s.table(&["leases", "ls"], &["CREATED", "AT"]);
        s.ok(&["leases", "create", "--id", "l1", "a=b"]);
        s.any(&["leases", "create", "--id", "l1"]);
        s.table(&["leases", "ls", "-q"], &[]);
        let made = s.ctr.ok(&["leases", "create", "--expires", "1h", "--id", "l2"]);
        assert_eq!(made.trim(), "l2");
        let listed = s.viewed(&["leases", "ls"], |text| {
            // Without the time of its making and of its expiry.
            text.lines()
                .map(|line| line.split_whitespace().next().unwrap_or_default().to_owned() + "\n")
                .collect()
        });
        assert!(listed.contains("a=b") && listed.contains("containerd.io/gc.expire"), "{listed}");
        s.ok(&["leases", "rm", "l1"]);
        s.any(&["leases", "rm", "l1"]);
        s.ok(&["leases", "rm", "--sync", "l2"]);
        s.table(&["leases", "ls"], &["CREATED", "AT"]);
    });
}
