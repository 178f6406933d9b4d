//! `ctr namespaces`.

use gantry_testkit::{Registry, root};

use crate::stage::{Stage, same_on_both};

#[test]
fn namespaces_are_made_labelled_listed_and_removed() {
    root!();
    same_on_both(story);
}

fn story(s: &mut Stage, _: &Registry) {
    s.table(&["namespaces", "ls"], &[]);
    s.ok(&["namespaces", "create", "alpha", "colour=green", "size=big"]);
    s.any(&["namespaces", "create", "alpha"]);
    s.any(&["namespaces", "create", "a--b"]);
    s.table(&["namespaces", "ls"], &[]);
    s.ok(&["namespaces", "label", "alpha", "colour=blue", "size="]);
    let table = s.table(&["namespaces", "ls"], &[]);
    assert!(table.contains("colour=blue") && !table.contains("size="), "{table}");
    s.any(&["namespaces", "rm", "alpha"]);
    s.any(&["namespaces", "rm", "alpha"]);
    s.table(&["namespaces", "ls", "-q"], &[]);
    // The first write makes a namespace; one that is not empty stays.
    let inside = s.ctr.in_namespace("beta");
    inside.ok(&["leases", "create", "--id", "l1"]);
    inside.ok(&["leases", "rm", "l1"]);
    s.table(&["namespaces", "ls"], &[]);
}
