//! The plugins' sections, with the names and defaults of the original. Source: features section A.

use std::time::Duration;

use gantry_core::{Error, Result, wire_names};
use serde::{Deserialize, Serialize};

/// Parses a duration as Go writes it, for example `100ms`, `1m30s`, `0s`.
///
/// # Errors
/// `InvalidArgument` naming the text.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid_argument(format!("invalid duration {text:?}; write for example 100ms, 5s or 1m30s"))
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        sum += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

/// `io.containerd.snapshotter.v1.overlayfs`. Keys that change what is not built yet are refused, not ignored.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct OverlaySection {
    /// Where snapshots are; empty for the plugin's own directory.
    pub(crate) root_path: String,
    /// Publishes the upper directory as a label. Not built yet.
    pub(crate) upperdir_label: bool,
    /// Deletes while the caller waits. Removal is always recorded first; the data follows in the background.
    pub(crate) sync_remove: bool,
    /// Changes owners of whole trees for user namespaces. Not built yet.
    pub(crate) slow_chown: bool,
    /// Options added to every overlay mount.
    pub(crate) mount_options: Vec<String>,
}

/// `io.containerd.snapshotter.v1.native`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct NativeSection {
    /// Where snapshots are; empty for the plugin's own directory.
    pub(crate) root_path: String,
}

/// `io.containerd.metadata.v1.bolt`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct MetadataSection {
    /// `shared` or `isolated`.
    pub(crate) content_sharing_policy: String,
    /// Leaves durability to the kernel.
    pub(crate) no_sync: bool,
}

impl Default for MetadataSection {
    fn default() -> Self {
        MetadataSection { content_sharing_policy: "shared".into(), no_sync: false }
    }
}

/// `io.containerd.gc.v1.scheduler`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CollectionSection {
    /// The largest part of time that collections may take.
    pub(crate) pause_threshold: f64,
    /// So many removals have a collection follow at once.
    pub(crate) deletion_threshold: u32,
    /// So many changes have a collection follow.
    pub(crate) mutation_threshold: u32,
    /// How long to wait once a collection is due.
    pub(crate) schedule_delay: String,
    /// How long after the start the first collection is.
    pub(crate) startup_delay: String,
}

impl Default for CollectionSection {
    fn default() -> Self {
        CollectionSection {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: "0s".into(),
            startup_delay: "100ms".into(),
        }
    }
}

/// `io.containerd.service.v1.diff-service`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct DiffSection {
    /// Differs in the order they are asked.
    pub(crate) default: Vec<String>,
    /// Makes the file system durable after every layer.
    pub(crate) sync_fs: bool,
}

impl Default for DiffSection {
    fn default() -> Self {
        DiffSection { default: vec!["walking".into()], sync_fs: false }
    }
}

/// `io.containerd.monitor.task.v1.cgroups`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CgroupsSection {
    /// Keeps tasks' figures off the page of metrics.
    pub(crate) no_prometheus: bool,
}

/// `io.containerd.server.v1.metrics`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct MetricsServerSection {
    /// Host and port; empty for no such server.
    pub(crate) address: String,
}

/// `io.containerd.monitor.container.v1.restart`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RestartSection {
    /// How often containers are looked at; 0 is the default.
    pub(crate) interval: String,
}

impl Default for RestartSection {
    fn default() -> Self {
        RestartSection { interval: "10s".into() }
    }
}

/// `io.containerd.shim.v1.manager`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ShimSection {
    /// `NAME=value` pairs added to every shim's environment.
    pub(crate) env: Vec<String>,
    /// Where shims put their sockets; empty for the original's place.
    pub(crate) socket_dir: String,
}

/// `io.containerd.server.v1.grpc`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct GrpcServerSection {
    /// The main socket.
    pub(crate) address: String,
    /// Its owner.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
}

impl Default for GrpcServerSection {
    fn default() -> Self {
        GrpcServerSection { address: wire_names::DEFAULT_ADDRESS.into(), uid: 0, gid: 0 }
    }
}

/// `io.containerd.server.v1.ttrpc`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct TtrpcServerSection {
    /// The shims' socket; empty for the main socket's path and `.ttrpc`.
    pub(crate) address: String,
    /// Its owner.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in
            [("0s", 0), ("100ms", 100), ("1m30s", 90_000), ("1.5s", 1500), ("0", 0), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "5", "s", "5 s", "-1s", "1x"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
