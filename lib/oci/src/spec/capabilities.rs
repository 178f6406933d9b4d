//! Capabilities: the default set, names, and what may be added and dropped.

use std::collections::HashSet;

use gantry_core::{Error, Result};

use crate::runtime::{Capability, LinuxCapabilities, Spec};

/// What a container's processes may have.
///
/// Source: containerd's client, `defaultUnixCaps`.
pub const DEFAULT: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Every capability, at the place of its number.
///
/// Source: `linux/capability.h`.
pub const ALL: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The names that a spec writes.
pub fn names(capabilities: &[Capability]) -> Vec<String> {
    capabilities.iter().map(|capability| format!("CAP_{capability}")).collect()
}

/// Reads a name, with or without `CAP_`, in any case.
///
/// # Errors
/// `InvalidArgument` for a name that no capability has.
pub fn parse(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    bare.parse().map_err(|_| Error::invalid_argument(format!("unknown capability {name:?}")))
}

/// What this process itself may do: more cannot be given away.
///
/// # Errors
/// Those of reading `/proc/self/status`.
pub fn current() -> Result<Vec<Capability>> {
    let path = "/proc/self/status";
    let status =
        std::fs::read_to_string(path).map_err(|error| Error::io(error).context(format!("read {path}")))?;
    // Source: proc(5): the effective set, in hexadecimal.
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .ok_or_else(|| Error::internal(format!("{path} has no CapEff")))?;
    Ok(ALL.iter().enumerate().filter(|(number, _)| bits >> number & 1 == 1).map(|(_, one)| *one).collect())
}

/// Gives the process of `spec` exactly `capabilities`.
pub fn set(spec: &mut Spec, capabilities: impl IntoIterator<Item = Capability>) {
    super::process(spec).set_capabilities(Some(sets(capabilities)));
}

/// The sets of a process with exactly `capabilities`. Inheritable and ambient ones stay empty (S09).
pub(crate) fn sets(capabilities: impl IntoIterator<Item = Capability>) -> LinuxCapabilities {
    let capabilities: HashSet<Capability> = capabilities.into_iter().collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(capabilities.clone()));
    sets.set_effective(Some(capabilities.clone()));
    sets.set_permitted(Some(capabilities));
    // The crate's default is not empty.
    sets.set_inheritable(None);
    sets.set_ambient(None);
    sets
}

/// The capabilities that the process of `spec` can have at most.
pub fn bounding(spec: &Spec) -> HashSet<Capability> {
    spec.process()
        .as_ref()
        .and_then(|process| process.capabilities().as_ref())
        .and_then(|sets| sets.bounding().clone())
        .unwrap_or_default()
}

/// Adds `more` to the sets of `spec`.
pub fn add(spec: &mut Spec, more: impl IntoIterator<Item = Capability>) {
    let mut capabilities = bounding(spec);
    capabilities.extend(more);
    set(spec, capabilities);
}

/// Takes `fewer` out of the sets of `spec`.
pub fn drop(spec: &mut Spec, fewer: impl IntoIterator<Item = Capability>) {
    let mut capabilities = bounding(spec);
    for one in fewer {
        capabilities.remove(&one);
    }
    set(spec, capabilities);
}
