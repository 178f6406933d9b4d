//! The runtime spec that a container has unless something else is asked for.
//!
//! Source: what containerd's client generates for Linux (`ctr oci spec`), release 2.2.

use gantry_core::{Error, Result};
use serde_json::json;

use super::capabilities;
use crate::runtime::Spec;

/// The spec version that is written. Runtimes that know only an older one get it lowered in the bundle.
///
/// Source: the version containerd's client writes.
pub const OCI_VERSION: &str = "1.3.0";

/// The name of the root file system's directory in a bundle.
pub const ROOTFS_PATH: &str = "rootfs";

/// Paths that nothing in a container may see. Powercap tells what the host computes (S14).
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

/// Paths that nothing in a container may change.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The environment of images that set none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The default Linux spec of container `id` in `namespace`.
///
/// # Errors
/// `InvalidArgument` if either could lead out of its cgroup.
pub fn linux(namespace: &str, id: &str) -> Result<Spec> {
    for part in [namespace, id] {
        if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
            return Err(Error::invalid_argument(format!("{part:?} cannot name a cgroup")));
        }
    }
    let capabilities = capabilities::names(capabilities::DEFAULT);
    let document = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            // No inheritable set: S09.
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": ROOTFS_PATH },
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "cgroupsPath": format!("/{namespace}/{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" },
            ],
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
        },
    });
    serde_json::from_value(document).map_err(|error| Error::internal(format!("default spec: {error}")))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> serde_json::Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}
