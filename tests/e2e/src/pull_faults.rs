//! Pulls that fail: the error says why, and the next pull works.

use std::net::TcpListener;

use gantry_testkit::{
    Compression, Daemon, FakeRegistry, Fault, Image, ImageBuilder, busybox_layer, eventually, root,
};

fn image() -> Image {
    ImageBuilder::new().layer(busybox_layer(), Compression::Gzip).env("PATH=/bin").build()
}

/// Pulls `image` while `fault` is in force, which must fail with all of `wanted` in the message; then without the
/// fault, which must work; and then nothing must be left.
fn fails_then_works(fault: impl FnOnce(&Image) -> Fault, wanted: &[&str]) {
    let image = image();
    let registry = FakeRegistry::start();
    let reference = registry.offer(&image, "team/app:1");
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    registry.set_fault(Some(fault(&image)));
    let refused = ctr.fails(&["images", "pull", "--plain-http", &reference]);
    for text in wanted {
        assert!(refused.contains(text), "no {text:?} in: {refused}");
    }
    assert!(ctr.names(&["images", "ls"]).is_empty(), "a failed pull makes no image");
    assert!(ctr.names(&["snapshots", "ls"]).is_empty(), "a failed pull leaves no snapshot");
    registry.set_fault(None);
    // A refused ingest stays until the collection after the end of the pull's lease; a client that comes before it
    // resumes it, and is refused for the same reason.
    eventually("the pull to work", || {
        ctr.run(&["images", "pull", "--plain-http", &reference]).success().then_some(())
    });
    assert_eq!(ctr.ok(&["run", "--rm", &reference, "c1", "/bin/echo", "works"]), "works\n");
    daemon.clear("default");
    assert!(ctr.names(&["content", "ls"]).is_empty());
    daemon.leftovers().assert_none();
}

#[test]
fn a_registry_that_wants_credentials_is_named_in_the_error() {
    root!();
    fails_then_works(|_| Fault::Unauthorized, &["401 Unauthorized"]);
}

#[test]
fn a_registry_that_is_busy_is_named_in_the_error() {
    root!();
    fails_then_works(|_| Fault::Unavailable, &["503"]);
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    root!();
    fails_then_works(
        |image| Fault::WrongBytes(image.layers[0].digest.clone()),
        &["unexpected commit digest", "failed precondition"],
    );
}

#[test]
fn a_configuration_that_is_not_what_its_digest_says_is_refused() {
    root!();
    fails_then_works(|image| Fault::WrongBytes(image.config.digest.clone()), &["failed precondition"]);
}

#[test]
fn a_layer_that_ends_early_is_refused() {
    root!();
    fails_then_works(|image| Fault::Truncated(image.layers[0].digest.clone()), &["EOF"]);
}

#[test]
fn an_unknown_reference_is_not_found() {
    root!();
    let registry = FakeRegistry::start();
    let daemon = Daemon::under_test();
    let refused =
        daemon.ctr().fails(&["images", "pull", "--plain-http", &format!("{}/no/such:1", registry.address())]);
    assert!(refused.contains("no/such:1") && refused.contains("not found"), "{refused}");
    daemon.leftovers().assert_none();
}

#[test]
fn a_registry_that_is_down_is_named_in_the_error() {
    root!();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let daemon = Daemon::under_test();
    let refused = daemon.ctr().fails(&["images", "pull", "--plain-http", &format!("{free}/team/app:1")]);
    assert!(refused.contains("connection refused") && refused.contains(&free), "{refused}");
    daemon.leftovers().assert_none();
}
