//! `ctr version` and `ctr plugins ls`.

use std::collections::BTreeSet;

use gantry_testkit::{Daemon, DaemonOptions, Program, root};

use crate::stage::same_on_both;

#[test]
fn version_answers_with_the_same_fields() {
    root!();
    // The values are each daemon's own.
    same_on_both(|s, _| {
        let printed = s.viewed(&["version"], |text| {
            text.lines()
                .map(|line| line.split_once(':').map_or(line, |(key, _)| key).to_owned() + "\n")
                .collect()
        });
        let server = printed.split("Server:").nth(1).expect("a server part");
        let version =
            server.lines().find_map(|line| line.trim().strip_prefix("Version:")).expect("a server version");
        assert!(!version.trim().is_empty(), "{printed}");
    });
}

/// Rows of `ctr plugins ls`: kind and id, and whether it is in order.
fn plugins(daemon: &Daemon) -> BTreeSet<(String, String)> {
    let table = daemon.ctr().ok(&["plugins", "ls"]);
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|fields| fields.len() >= 3)
        .map(|fields| (fields[0].to_owned(), fields[1].to_owned()))
        .collect()
}

/// What every client of this path relies on. Source: `ctr plugins ls` of containerd 1.6.20.
const NEEDED: &[(&str, &str)] = &[
    ("io.containerd.content.v1", "content"),
    ("io.containerd.snapshotter.v1", "native"),
    ("io.containerd.snapshotter.v1", "overlayfs"),
    ("io.containerd.metadata.v1", "bolt"),
    ("io.containerd.differ.v1", "walking"),
    ("io.containerd.gc.v1", "scheduler"),
    ("io.containerd.service.v1", "introspection-service"),
    ("io.containerd.service.v1", "containers-service"),
    ("io.containerd.service.v1", "content-service"),
    ("io.containerd.service.v1", "diff-service"),
    ("io.containerd.service.v1", "images-service"),
    ("io.containerd.service.v1", "namespaces-service"),
    ("io.containerd.service.v1", "snapshots-service"),
    ("io.containerd.service.v1", "tasks-service"),
    ("io.containerd.runtime.v2", "task"),
    ("io.containerd.grpc.v1", "introspection"),
    ("io.containerd.grpc.v1", "containers"),
    ("io.containerd.grpc.v1", "content"),
    ("io.containerd.grpc.v1", "diff"),
    ("io.containerd.grpc.v1", "events"),
    ("io.containerd.grpc.v1", "healthcheck"),
    ("io.containerd.grpc.v1", "images"),
    ("io.containerd.grpc.v1", "leases"),
    ("io.containerd.grpc.v1", "namespaces"),
    ("io.containerd.grpc.v1", "snapshots"),
    ("io.containerd.grpc.v1", "tasks"),
    ("io.containerd.grpc.v1", "version"),
];

#[test]
fn plugins_of_the_path_are_there_and_in_order() {
    root!();
    let daemon = Daemon::under_test();
    let table = daemon.ctr().ok(&["plugins", "ls"]);
    for (kind, id) in NEEDED {
        let row = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|f| f.len() > 2 && f[0] == *kind && f[1] == *id);
        let row = row.unwrap_or_else(|| panic!("no plugin {kind} {id}:\n{table}"));
        assert_eq!(row.last(), Some(&"ok"), "{kind} {id}");
    }
}

/// Kinds and ids that containerd has gained since 1.6. Source: containerd 2.x, `ctr plugins ls`.
const SINCE: &[(&str, &str)] = &[
    ("io.containerd.event.v1", "exchange"),
    ("io.containerd.image-verifier.v1", "bindir"),
    ("io.containerd.lease.v1", "manager"),
    ("io.containerd.sandbox.store.v1", "local"),
    ("io.containerd.sandbox.controller.v1", "shim"),
    ("io.containerd.podsandbox.controller.v1", "podsandbox"),
    ("io.containerd.service.v1", "sandbox-controllers"),
    ("io.containerd.service.v1", "sandbox-stores"),
    ("io.containerd.streaming.v1", "manager"),
    ("io.containerd.transfer.v1", "local"),
    ("io.containerd.mount-manager.v1", "bolt"),
    ("io.containerd.mount-handler.v1", "erofs"),
    ("io.containerd.shim.v1", "manager"),
    ("io.containerd.deprecation.v1", "warning"),
    ("io.containerd.warning.v1", "deprecations"),
    ("io.containerd.nri.v1", "nri"),
    ("io.containerd.cri.v1", "images"),
    ("io.containerd.cri.v1", "runtime"),
    ("io.containerd.internal.v1", "cri"),
    ("io.containerd.monitor.container.v1", "restart"),
    ("io.containerd.monitor.task.v1", "cgroups"),
    ("io.containerd.snapshotter.v1", "erofs"),
    ("io.containerd.snapshotter.v1", "blockfile"),
    ("io.containerd.differ.v1", "erofs"),
    ("io.containerd.grpc.v1", "mounts"),
    ("io.containerd.grpc.v1", "sandbox-controllers"),
    ("io.containerd.grpc.v1", "sandboxes"),
    ("io.containerd.grpc.v1", "streaming"),
    ("io.containerd.grpc.v1", "transfer"),
    ("io.containerd.ttrpc.v1", "otelttrpc"),
    ("io.containerd.server.v1", "grpc"),
    ("io.containerd.server.v1", "grpc-tcp"),
    ("io.containerd.server.v1", "ttrpc"),
    ("io.containerd.server.v1", "debug"),
    ("io.containerd.server.v1", "metrics"),
    ("io.containerd.tracing.processor.v1", "otlp"),
];

/// What only gantry has: its own services, under names that nobody else gives.
const OURS: &[(&str, &str)] = &[("io.containerd.grpc.v1", "gantry-maintenance")];

#[test]
fn plugins_have_no_kinds_and_ids_that_containerd_does_not_know() {
    root!();
    let ours = plugins(&Daemon::under_test());
    let theirs = plugins(&DaemonOptions::new(Program::containerd()).start());
    let unknown: Vec<_> = ours
        .iter()
        .filter(|plugin| {
            let mut known = SINCE.iter().chain(OURS);
            !theirs.contains(plugin) && !known.any(|(kind, id)| *kind == plugin.0 && *id == plugin.1)
        })
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn plugins_that_are_disabled_vanish() {
    root!();
    let mut daemon = DaemonOptions::new(Program::under_test()).prepare();
    let config = std::fs::read_to_string(daemon.dir().join("config.toml")).unwrap();
    let more = config
        .replace("disabled_plugins = [", "disabled_plugins = [\"io.containerd.snapshotter.v1.native\", ");
    std::fs::write(daemon.dir().join("config.toml"), more).unwrap();
    daemon.start();
    let found = plugins(&daemon);
    assert!(!found.contains(&("io.containerd.snapshotter.v1".to_owned(), "native".to_owned())));
    assert!(found.contains(&("io.containerd.snapshotter.v1".to_owned(), "overlayfs".to_owned())));
}
