//! Containers that cannot start: the error says why, and nothing is left behind.

use gantry_testkit::{Ctr, Daemon, busybox_image, eventually, root};

use crate::stage::BUSYBOX;

/// Runs `ctr` with `args` on a daemon with a busybox image; it must fail with one of `wanted` in the message and
/// leave nothing.
fn refused(args: &[&str], wanted: &[&str]) {
    refused_after(|_, _| {}, args, wanted);
}

fn refused_after(before: impl FnOnce(&Daemon, &Ctr), args: &[&str], wanted: &[&str]) {
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    before(&daemon, &ctr);
    let config = daemon.dir().join("spec.json").to_string_lossy().into_owned();
    let args: Vec<&str> = args.iter().map(|arg| if *arg == "SPEC" { config.as_str() } else { arg }).collect();
    let error = ctr.fails(&args);
    assert!(wanted.iter().any(|text| error.contains(text)), "none of {wanted:?} in: {error}");
    assert!(ctr.names(&["tasks", "ls"]).is_empty(), "no task stays");
    assert!(ctr.names(&["containers", "ls"]).is_empty(), "no container stays");
    // ctr made one for the container, and leaves it to the collection after the end of its lease.
    eventually("the container's snapshot to go", || {
        (ctr.names(&["snapshots", "ls"]).len() == 1).then_some(())
    });
    daemon.leftovers().assert_none();
    // The same id is free, and the daemon as good as before.
    assert_eq!(ctr.ok(&["run", "--rm", BUSYBOX, "c1", "/bin/echo", "works"]), "works\n");
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn a_missing_executable_is_named() {
    root!();
    refused(&["run", "--rm", BUSYBOX, "c1", "/bin/imaginary"], &["/bin/imaginary"]);
}

#[test]
fn an_executable_that_is_a_directory_is_refused() {
    root!();
    refused(&["run", "--rm", BUSYBOX, "c1", "/etc"], &["permission denied", "is a directory"]);
}

#[test]
fn an_unknown_runtime_is_named() {
    root!();
    refused(
        &["run", "--rm", "--runtime", "io.containerd.imaginary.v1", BUSYBOX, "c1", "/bin/true"],
        &["imaginary"],
    );
}

#[test]
fn a_runtime_with_a_bad_name_is_refused() {
    root!();
    refused(&["run", "--rm", "--runtime", "nodots", BUSYBOX, "c1", "/bin/true"], &["nodots"]);
}

#[test]
fn a_runtime_binary_that_is_missing_is_named() {
    root!();
    refused(
        &["run", "--rm", "--runc-binary", "imaginary-runc", BUSYBOX, "c1", "/bin/true"],
        &["imaginary-runc"],
    );
}

#[test]
fn a_working_directory_that_is_a_file_is_refused() {
    root!();
    refused(
        &["run", "--rm", "--cwd", "/etc/passwd", BUSYBOX, "c1", "/bin/true"],
        &["/etc/passwd", "not a directory"],
    );
}

#[test]
fn a_mount_without_a_source_is_named() {
    root!();
    let mount = "type=bind,src=/imaginary/source,dst=/x,options=rbind";
    refused(&["run", "--rm", "--mount", mount, BUSYBOX, "c1", "/bin/true"], &["/imaginary/source"]);
}

#[test]
fn a_network_namespace_that_is_missing_is_named() {
    root!();
    refused(
        &["run", "--rm", "--with-ns", "network:/imaginary/net", BUSYBOX, "c1", "/bin/true"],
        &["imaginary"],
    );
}

#[test]
fn an_image_that_is_missing_is_named() {
    root!();
    refused(&["run", "--rm", "example.org/imaginary:1", "c1", "/bin/true"], &["imaginary:1\": not found"]);
}

#[test]
fn an_id_that_is_none_is_refused() {
    root!();
    refused(&["run", "--rm", BUSYBOX, "../c1", "/bin/true"], &["invalid argument"]);
}

/// Writes `spec` to the file that `SPEC` in the arguments stands for, with a root file system of busybox.
fn with_spec(spec: &'static str) -> impl FnOnce(&Daemon, &Ctr) {
    move |daemon, _| std::fs::write(daemon.dir().join("spec.json"), spec).unwrap()
}

#[test]
fn a_spec_that_is_no_json_is_refused() {
    root!();
    refused_after(with_spec("{"), &["run", "--rm", "--config", "SPEC", "c1"], &["unexpected EOF", "JSON"]);
}

#[test]
fn a_spec_without_a_process_is_refused() {
    root!();
    let spec = r#"{"ociVersion":"1.0.2","root":{"path":"/imaginary"}}"#;
    refused_after(
        with_spec(spec),
        &["run", "--rm", "--config", "SPEC", "c1"],
        &["process", "root", "imaginary", "rootfs"],
    );
}

#[test]
fn a_spec_that_is_an_empty_object_is_refused() {
    root!();
    // The original's runtime ends without a word ("unknown"); ours must not be worse than failing.
    refused_after(with_spec("{}"), &["run", "--rm", "--config", "SPEC", "c1"], &[""]);
}

#[test]
fn a_task_that_cannot_start_can_be_deleted_and_made_again() {
    root!();
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    ctr.ok(&["containers", "create", BUSYBOX, "c1", "/bin/imaginary"]);
    for _ in 0..3 {
        let error = ctr.fails(&["tasks", "start", "c1"]);
        assert!(error.contains("/bin/imaginary"), "{error}");
        assert!(ctr.names(&["tasks", "ls"]).is_empty(), "no task stays");
    }
    ctr.ok(&["containers", "rm", "c1"]);
    daemon.clear("default");
    daemon.leftovers().assert_none();
}
