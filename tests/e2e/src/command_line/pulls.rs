//! `gantry pull`.

use gantry_testkit::{
    Compression, FakeRegistry, Fault, ImageBuilder, Pty, Registry, Tar, busybox_image, busybox_layer,
    eventually, root,
};
use rustix::process::Signal;

use super::{Cli, on_each};

#[test]
fn gantry_pull_prints_plain_lines_in_a_pipe() {
    root!();
    let registry = Registry::start();
    let image = busybox_image();
    let reference = registry.push(&image, "team/app:1");
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let printed = cli.ok(&["pull", "--plain-http", &reference]);
        let (manifest, config, layer) = (image.digest(), &image.config.digest, &image.layers[0].digest);
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[0].starts_with(&format!("resolved {manifest} at ")), "{printed}");
        for (line, start) in lines[1..].iter().zip([
            format!("manifest {manifest} fetched ("),
            format!("config {config} fetched ("),
            format!("layer {layer} fetched ("),
            format!("layer {layer} unpacked"),
            format!("pulled {reference} {manifest}"),
        ]) {
            assert!(line.starts_with(&start), "no {start:?} in:\n{printed}");
        }
        assert!(!printed.contains(['\u{1b}', '\r']), "{printed:?}");

        let again = cli.ok(&["pull", "--plain-http", &reference]);
        assert!(again.contains(&format!("layer {layer} is unpacked already")), "{again}");
        assert!(again.ends_with(&format!("pulled {reference} {manifest}\n")), "{again}");

        let listed = cli.ok(&["images"]);
        let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[1], row[3]), (reference.as_str(), manifest, "MiB"), "{listed}");
        assert_eq!(cli.ok(&["images", "-q"]), format!("{reference}\n"));
        assert_eq!(cli.ok(&["rmi", &reference]), format!("{reference}\n"));
        cli.close();
    });
}

#[test]
fn gantry_pull_draws_bars_on_a_terminal() {
    root!();
    let registry = Registry::start();
    let noise: Vec<u8> = (0..1u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image = ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(Tar::new().file("noise", 0o644, noise), Compression::Gzip)
        .build();
    let reference = registry.push(&image, "team/app:1");
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let mut terminal = Pty::spawn(&mut cli.command(&["pull", "--plain-http", &reference]), 120, 30);
        assert_eq!(terminal.wait(), 0, "{}", terminal.screen());
        let end = format!("pulled {reference} {}", image.digest());
        terminal.wait_for(&end);
        let screen = terminal.screen();
        for blob in &image.layers {
            let short = &blob.digest["sha256:".len()..][..12];
            assert!(screen.contains(&format!("layer    {short} [======")), "{screen:?}");
        }
        assert!(screen.contains("done") && screen.contains('\u{1b}'), "{screen:?}");
        assert!(!screen.contains("resolved"), "bars, and no lines: {screen:?}");
        cli.close();
    });
}

#[test]
fn gantry_pull_can_be_interrupted_and_goes_on_the_next_time() {
    root!();
    let registry = FakeRegistry::start();
    let image = busybox_image();
    let reference = registry.offer(&image, "team/app:1");
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        registry.set_fault(Some(Fault::Stalled(image.layers[0].digest.clone())));
        let mut pull = cli.spawn(&["pull", "--plain-http", &reference]);
        pull.wait_for_output("config ");
        pull.signal(Signal::INT);
        let output = pull.wait();
        assert_eq!(output.code, 130, "{output:?}");
        let wanted = format!("gantry: pull {reference:?}: interrupted by signal 2: context canceled\n");
        assert_eq!(output.stderr, wanted);
        for noun in ["images", "snapshots", "leases"] {
            assert!(cli.ctr.names(&[noun, "ls"]).is_empty(), "{noun}");
        }
        registry.set_fault(None);
        eventually("the pull to work", || {
            cli.run(&["pull", "--plain-http", &reference]).success().then_some(())
        });
        assert_eq!(cli.ok(&["run", "--rm", &reference, "c1", "/bin/echo", "works"]), "works\n");
        cli.close();
    });
}

#[test]
fn gantry_pull_without_unpacking_leaves_that_to_run() {
    root!();
    let registry = Registry::start();
    let reference = registry.push(&busybox_image(), "team/app:1");
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let printed = cli.ok(&["pull", "--plain-http", "--no-unpack", &reference]);
        assert!(!printed.contains("unpacked"), "{printed}");
        assert!(cli.ctr.names(&["snapshots", "ls"]).is_empty());
        assert_eq!(cli.ok(&["run", "--rm", &reference, "c1", "/bin/echo", "hi"]), "hi\n");
        cli.close();
    });
}
