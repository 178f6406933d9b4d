//! Building a container's runtime spec.
//!
//! [`SpecOptions`] is a plain struct: fill in what differs from the default and call [`SpecOptions::build`]. What it
//! is made of can be used alone: each module changes a [`Spec`] in one respect.

pub mod capabilities;
pub mod default;
pub mod devices;
pub mod environment;
pub mod seccomp;
pub mod sysctl;

mod exec;
mod options;

use std::path::{Path, PathBuf};

use gantry_core::{Error, Result};

pub use exec::{ExecOptions, exec_process};
pub use options::{CapabilityChoice, Cpu, Memory, Seccomp, SpecOptions, UserNamespace};

use crate::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, PosixRlimit, PosixRlimitType, Process,
    Root, Spec,
};

/// The process of `spec`, made if it has none.
pub(crate) fn process(spec: &mut Spec) -> &mut Process {
    spec.process_mut().get_or_insert_with(|| {
        serde_json::from_value(serde_json::json!({ "user": {}, "cwd": "/" }))
            .expect("a literal process is valid")
    })
}

/// The Linux section of `spec`, made if it has none.
pub(crate) fn linux(spec: &mut Spec) -> &mut Linux {
    spec.linux_mut().get_or_insert_with(|| {
        serde_json::from_value(serde_json::json!({})).expect("an empty section is valid")
    })
}

/// The resources of `spec`, made if it has none.
pub(crate) fn resources(spec: &mut Spec) -> &mut LinuxResources {
    linux(spec).resources_mut().get_or_insert_with(|| {
        serde_json::from_value(serde_json::json!({})).expect("an empty section is valid")
    })
}

/// The root of `spec`, made if it has none.
fn root(spec: &mut Spec) -> &mut Root {
    spec.root_mut().get_or_insert_with(|| {
        serde_json::from_value(serde_json::json!({ "path": default::ROOTFS_PATH }))
            .expect("a literal root is valid")
    })
}

/// Reads a spec that somebody wrote.
///
/// # Errors
/// `InvalidArgument` if it is longer than 8 MiB or no runtime spec.
pub fn parse(bytes: &[u8]) -> Result<Spec> {
    crate::json::decode("runtime spec", bytes)
}

/// The spec as it is stored in a container's record.
///
/// # Errors
/// `Internal` if it cannot be encoded.
pub fn to_bytes(spec: &Spec) -> Result<Vec<u8>> {
    serde_json::to_vec(spec).map_err(|error| Error::internal(format!("encode runtime spec: {error}")))
}

/// A mount of a spec.
pub fn mount(
    destination: impl Into<PathBuf>,
    kind: &str,
    source: impl Into<PathBuf>,
    options: &[&str],
) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(source.into()));
    mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// Takes out every mount at one of `destinations`.
pub fn remove_mounts(spec: &mut Spec, destinations: &[PathBuf]) {
    // Comparing components leaves trailing and doubled slashes out of account.
    let same = |one: &Path, other: &Path| one.components().eq(other.components());
    if let Some(mounts) = spec.mounts_mut() {
        mounts.retain(|mount| !destinations.iter().any(|gone| same(mount.destination(), gone)));
    }
}

/// Puts the container into its own namespace of `kind`, or into the one at `path`.
pub fn set_namespace(spec: &mut Spec, kind: LinuxNamespaceType, path: Option<PathBuf>) {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace.set_path(path);
    let namespaces = linux(spec).namespaces_mut().get_or_insert_default();
    match namespaces.iter_mut().find(|one| one.typ() == kind) {
        Some(present) => *present = namespace,
        None => namespaces.push(namespace),
    }
}

/// Leaves the container in the host's namespace of `kind`.
pub fn share_host_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    if let Some(namespaces) = linux(spec).namespaces_mut() {
        namespaces.retain(|namespace| namespace.typ() != kind);
    }
}

/// Shares the host's network: its namespace and its files that tell how to use it.
///
/// Source: `ctr run --net-host`.
pub fn share_host_network(spec: &mut Spec) {
    share_host_namespace(spec, LinuxNamespaceType::Network);
    let mounts = spec.mounts_mut().get_or_insert_default();
    for path in ["/etc/hosts", "/etc/resolv.conf"] {
        mounts.push(mount(path, "bind", path, &["rbind", "ro"]));
    }
}

/// Makes mounts of type `kind` writable.
fn make_writable(spec: &mut Spec, kind: &str) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if mount.typ().as_deref() == Some(kind) {
            for option in mount.options_mut().iter_mut().flatten().filter(|option| *option == "ro") {
                *option = "rw".to_owned();
            }
        }
    }
}

/// Takes away what confines the container, but for its namespaces and devices.
///
/// Source: containerd's client, `WithPrivileged`.
///
/// # Errors
/// As [`capabilities::current`].
pub fn make_privileged(spec: &mut Spec) -> Result<()> {
    capabilities::set(spec, capabilities::current()?);
    for kind in ["sysfs", "cgroup"] {
        make_writable(spec, kind);
    }
    let linux = linux(spec);
    linux.set_masked_paths(None);
    linux.set_readonly_paths(None);
    linux.set_seccomp(None);
    let process = process(spec);
    process.set_selinux_label(None);
    process.set_apparmor_profile(None);
    Ok(())
}

/// Sets a limit of the process, replacing the one of its kind.
///
/// # Errors
/// `InvalidArgument` if the soft limit is above the hard one.
pub fn set_rlimit(spec: &mut Spec, kind: PosixRlimitType, soft: u64, hard: u64) -> Result<()> {
    if soft > hard {
        return Err(Error::invalid_argument(format!(
            "rlimit {kind}: soft limit {soft} above hard limit {hard}"
        )));
    }
    let limit: PosixRlimit =
        serde_json::from_value(serde_json::json!({ "type": kind, "soft": soft, "hard": hard }))
            .map_err(|error| Error::internal(format!("rlimit: {error}")))?;
    // `oci-spec` has no mutable access to the limits.
    let process = process(spec);
    let mut limits = process.rlimits().clone().unwrap_or_default();
    match limits.iter_mut().find(|one| one.typ() == kind) {
        Some(present) => *present = limit,
        None => limits.push(limit),
    }
    process.set_rlimits(Some(limits));
    Ok(())
}

/// Sets the size of `/dev/shm`.
///
/// # Errors
/// `FailedPrecondition` if the spec has no such mount.
pub fn set_shm_size(spec: &mut Spec, size_bytes: u64) -> Result<()> {
    let found = spec.mounts_mut().iter_mut().flatten().find(|mount| {
        mount.destination() == Path::new("/dev/shm") && mount.typ().as_deref() == Some("tmpfs")
    });
    let Some(found) = found else { return Err(Error::failed_precondition("no /dev/shm mount specified")) };
    let options = found.options_mut().get_or_insert_default();
    options.retain(|option| !option.starts_with("size="));
    options.push(format!("size={size_bytes}"));
    Ok(())
}

#[cfg(test)]
mod tests;
