//! Brings older versions of the configuration to version 4. Source: features C09 to C12.

use gantry_core::{Error, Result};
use toml::{Table, Value};

/// The newest version.
pub(crate) const LATEST: i64 = 4;

/// What version 1 called plugins, and what they are called since. Source: features C10.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("cri", "io.containerd.grpc.v1.cri"),
    ("cgroups", "io.containerd.monitor.v1.cgroups"),
    ("scheduler", "io.containerd.gc.v1.scheduler"),
    ("bolt", "io.containerd.metadata.v1.bolt"),
    ("task", "io.containerd.runtime.v2.task"),
    ("opt", "io.containerd.internal.v1.opt"),
    ("restart", "io.containerd.internal.v1.restart"),
    ("tracing", "io.containerd.internal.v1.tracing"),
    ("otlp", "io.containerd.tracing.processor.v1.otlp"),
    ("btrfs", "io.containerd.snapshotter.v1.btrfs"),
    ("devmapper", "io.containerd.snapshotter.v1.devmapper"),
    ("native", "io.containerd.snapshotter.v1.native"),
    ("overlayfs", "io.containerd.snapshotter.v1.overlayfs"),
    ("zfs", "io.containerd.snapshotter.v1.zfs"),
    ("containers-service", "io.containerd.service.v1.containers-service"),
    ("content-service", "io.containerd.service.v1.content-service"),
    ("diff-service", "io.containerd.service.v1.diff-service"),
    ("images-service", "io.containerd.service.v1.images-service"),
    ("introspection-service", "io.containerd.service.v1.introspection-service"),
    ("namespaces-service", "io.containerd.service.v1.namespaces-service"),
    ("snapshots-service", "io.containerd.service.v1.snapshots-service"),
    ("tasks-service", "io.containerd.service.v1.tasks-service"),
];

/// The version a file says it has; without one it is 1.
///
/// # Errors
/// `InvalidArgument` for one that is not known.
pub(super) fn version_of(file: &Table) -> Result<i64> {
    let version = match file.get("version") {
        None => 1,
        Some(Value::Integer(version)) => *version,
        Some(other) => {
            return Err(Error::invalid_argument(format!("version must be a number, not {other}")));
        }
    };
    match version {
        0 => Ok(1),
        1..=LATEST => Ok(version),
        _ => Err(Error::invalid_argument(format!(
            "expected configuration version at most {LATEST}, got {version}"
        ))),
    }
}

/// Brings `file`, which says it has `version`, to the latest one.
///
/// # Errors
/// `InvalidArgument` naming what cannot be brought over.
pub(super) fn migrate(file: &mut Table, version: i64) -> Result<()> {
    if version < 2 {
        to_uris(file);
    }
    if version < 3 {
        rename(file, "io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart");
        rename(file, "io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups");
    }
    if version < 4 {
        to_server_plugins(file);
    }
    for key in ["disabled_plugins", "required_plugins"] {
        let names = file.get(key).and_then(Value::as_array).into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            if !name.contains('.') {
                // Source: features A70.
                return Err(Error::invalid_argument(format!(
                    "{key}: invalid plugin URI {name:?}; write it in full, for example \"io.containerd.grpc.v1.{name}\""
                )));
            }
        }
    }
    file.insert("version".into(), Value::Integer(LATEST));
    Ok(())
}

fn full_name(short: &str) -> Option<&'static str> {
    SHORT_NAMES.iter().find(|(name, _)| *name == short).map(|(_, uri)| *uri)
}

/// Version 1 to 2: short names become URIs.
fn to_uris(file: &mut Table) {
    for key in ["disabled_plugins", "required_plugins"] {
        if let Some(Value::Array(names)) = file.get_mut(key) {
            for name in names {
                if let Some(uri) = name.as_str().and_then(full_name) {
                    *name = Value::String(uri.into());
                }
            }
        }
    }
    if let Some(Value::Table(plugins)) = file.get_mut("plugins") {
        *plugins = std::mem::take(plugins)
            .into_iter()
            .map(|(name, section)| (full_name(&name).map_or(name, str::to_owned), section))
            .collect();
    }
}

/// A plugin that got another name. Source: features C11.
fn rename(file: &mut Table, from: &str, to: &str) {
    for key in ["disabled_plugins", "required_plugins"] {
        let names = file.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
        for name in names.filter(|name| name.as_str() == Some(from)) {
            *name = Value::String(to.into());
        }
    }
    if let Some(Value::Table(plugins)) = file.get_mut("plugins")
        && let Some(section) = plugins.remove(from)
    {
        plugins.entry(to).or_insert(section);
    }
}

/// Version 3 to 4: servers became plugins.
fn to_server_plugins(file: &mut Table) {
    let moved = [
        (
            "grpc",
            &["address", "uid", "gid", "max_recv_message_size", "max_send_message_size"][..],
            "io.containerd.server.v1.grpc",
        ),
        ("ttrpc", &["address", "uid", "gid"][..], "io.containerd.server.v1.ttrpc"),
        ("debug", &["address", "uid", "gid"][..], "io.containerd.server.v1.debug"),
        ("metrics", &["address"][..], "io.containerd.server.v1.metrics"),
        ("metrics", &["grpc_histogram"][..], "io.containerd.metrics.v1.grpc-prometheus"),
    ];
    for (table, keys, uri) in moved {
        let Some(Value::Table(old)) = file.get_mut(table) else { continue };
        let values: Vec<_> =
            keys.iter().filter_map(|key| Some(((*key).to_owned(), old.remove(*key)?))).collect();
        if old.is_empty() && table != "debug" {
            file.remove(table);
        }
        if values.is_empty() {
            continue;
        }
        let plugins = file.entry("plugins").or_insert_with(|| Value::Table(Table::new()));
        let Some(plugins) = plugins.as_table_mut() else { continue };
        let section = plugins.entry(uri).or_insert_with(|| Value::Table(Table::new()));
        if let Some(section) = section.as_table_mut() {
            for (key, value) in values {
                // What the plugin's own section says already counts.
                section.entry(key).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_names_and_old_servers_are_brought_over() {
        let mut file: Table = "disabled_plugins = ['cri']\n[grpc]\naddress = '/x'\n[debug]\nlevel = 'debug'\n[plugins.scheduler]\npause_threshold = 0.1\n[plugins.restart]\ninterval = '3s'\n[metrics]\naddress = ':1338'\ngrpc_histogram = true\n"
            .parse()
            .unwrap();
        let version = version_of(&file).unwrap();
        migrate(&mut file, version).unwrap();
        assert_eq!(file["disabled_plugins"][0].as_str(), Some("io.containerd.grpc.v1.cri"));
        assert_eq!(file["plugins"]["io.containerd.server.v1.grpc"]["address"].as_str(), Some("/x"));
        assert_eq!(file["plugins"]["io.containerd.gc.v1.scheduler"]["pause_threshold"].as_float(), Some(0.1));
        let restart = &file["plugins"]["io.containerd.monitor.container.v1.restart"];
        assert_eq!(restart["interval"].as_str(), Some("3s"));
        let plugins = &file["plugins"];
        assert_eq!(plugins["io.containerd.server.v1.metrics"]["address"].as_str(), Some(":1338"));
        let grpc = &plugins["io.containerd.metrics.v1.grpc-prometheus"];
        assert_eq!(grpc["grpc_histogram"].as_bool(), Some(true));
        assert_eq!(file["debug"]["level"].as_str(), Some("debug"));
        assert!(!file.contains_key("grpc"));
    }

    #[test]
    fn short_names_are_an_error_since_version_2() {
        let mut file: Table = "version = 2\ndisabled_plugins = ['cri']".parse().unwrap();
        assert!(migrate(&mut file, 2).unwrap_err().to_string().contains("io.containerd.grpc.v1.cri"));
    }

    #[test]
    fn a_version_from_the_future_is_refused() {
        assert!(version_of(&"version = 5".parse().unwrap()).is_err());
    }
}
