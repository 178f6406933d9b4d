//! Devices: which ones a container has, and which its cgroup lets it use.

use std::fs::Metadata;
use std::io::ErrorKind as Io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result};

use crate::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

/// Read, write and make.
pub const ALL_ACCESS: &str = "rwm";

/// Directories of `/dev` that are mounts of their own.
///
/// Source: containerd's client, `getDevices`.
const SKIPPED_DIRECTORIES: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
/// A host has some hundred devices; this only ends a walk through something else.
const MAX_DEVICES: usize = 65536;
const MAX_DEPTH: usize = 16;

/// A device that is asked for by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The device, or a directory of devices, on the host.
    pub path: PathBuf,
    /// Where the container has it; the same path if absent.
    pub container_path: Option<PathBuf>,
    /// What it may do with it, of `r`, `w` and `m`.
    pub access: String,
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    numbers: (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(kind);
    rule.set_major(numbers.0);
    rule.set_minor(numbers.1);
    rule.set_access(Some(access.to_owned()));
    rule
}

fn rules(spec: &mut Spec) -> &mut Vec<LinuxDeviceCgroup> {
    super::resources(spec).devices_mut().get_or_insert_default()
}

/// Lets the container use the devices that every container has.
///
/// Source: containerd's client, `WithDefaultUnixDevices`.
pub fn allow_default(spec: &mut Spec) {
    // null, random, full, tty, zero, urandom, console, pts, ptmx.
    let defaults = [
        (1, Some(3)),
        (1, Some(8)),
        (1, Some(7)),
        (5, Some(0)),
        (1, Some(5)),
        (1, Some(9)),
        (5, Some(1)),
        (136, None),
        (5, Some(2)),
    ];
    rules(spec).extend(
        defaults.map(|(major, minor)| rule(true, Some(LinuxDeviceType::C), (Some(major), minor), ALL_ACCESS)),
    );
}

/// Lets the container use every device there is.
pub fn allow_all(spec: &mut Spec) {
    *rules(spec) = vec![rule(true, None, (None, None), ALL_ACCESS)];
}

/// Adds what `request` names, and lets the container use it.
///
/// # Errors
/// `NotFound` if there is no such file; `InvalidArgument` if it is no device, or for an unknown access.
pub fn add(spec: &mut Spec, request: &DeviceRequest) -> Result<()> {
    if request.access.is_empty() || !request.access.bytes().all(|byte| ALL_ACCESS.as_bytes().contains(&byte))
    {
        return Err(Error::invalid_argument(format!("device access {:?}", request.access)));
    }
    let mut found = Vec::new();
    let shown_at = request.container_path.as_deref().unwrap_or(&request.path);
    walk(&request.path, shown_at, true, 0, &mut found)?;
    for device in &found {
        let numbers = (Some(device.major()), Some(device.minor()));
        let rule = rule(true, Some(device.typ()), numbers, &request.access);
        rules(spec).push(rule);
    }
    super::linux(spec).devices_mut().get_or_insert_default().extend(found);
    Ok(())
}

/// Adds every device of the host, without cgroup rules: see [`allow_all`].
///
/// # Errors
/// Those of walking `/dev`.
pub fn add_host(spec: &mut Spec) -> Result<()> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), true, 0, &mut found)?;
    super::linux(spec).devices_mut().get_or_insert_default().extend(found);
    Ok(())
}

fn walk(
    path: &Path,
    shown_at: &Path,
    asked_for: bool,
    depth: usize,
    found: &mut Vec<LinuxDevice>,
) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(error).context(format!("device {}", path.display()));
    // A link that was asked for by name is followed to a directory, but a device is taken as it is.
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) if asked_for && metadata.is_symlink() && path.is_dir() => {
            std::fs::metadata(path).map_err(failed)?
        }
        Ok(metadata) => metadata,
        Err(error) if !asked_for && matches!(error.kind(), Io::NotFound | Io::PermissionDenied) => {
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    if metadata.is_dir() {
        if depth >= MAX_DEPTH {
            return Err(Error::invalid_argument(format!("{} is nested too deeply", path.display())));
        }
        let entries = match std::fs::read_dir(path) {
            Err(error) if !asked_for && error.kind() == Io::PermissionDenied => return Ok(()),
            other => other.map_err(failed)?,
        };
        let mut names = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(failed)?;
        names.sort();
        for name in names {
            let child = path.join(&name);
            let skipped =
                name.to_str().is_some_and(|name| SKIPPED_DIRECTORIES.contains(&name) && child.is_dir());
            if !skipped && name != "console" {
                walk(&child, &shown_at.join(&name), false, depth + 1, found)?;
            }
        }
        return Ok(());
    }
    match kind(&metadata) {
        Some(kind) if asked_for || kind != LinuxDeviceType::P => {
            if found.len() >= MAX_DEVICES {
                return Err(Error::invalid_argument("too many devices"));
            }
            found.push(device(&metadata, kind, shown_at));
            Ok(())
        }
        None if asked_for => Err(Error::invalid_argument(format!("{} is not a device", path.display()))),
        _ => Ok(()),
    }
}

fn kind(metadata: &Metadata) -> Option<LinuxDeviceType> {
    let kind = metadata.file_type();
    if kind.is_block_device() {
        Some(LinuxDeviceType::B)
    } else if kind.is_char_device() {
        Some(LinuxDeviceType::C)
    } else if kind.is_fifo() {
        Some(LinuxDeviceType::P)
    } else {
        None
    }
}

fn device(metadata: &Metadata, kind: LinuxDeviceType, shown_at: &Path) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device.set_path(shown_at.to_owned());
    device.set_typ(kind);
    device.set_major(i64::from(rustix::fs::major(metadata.rdev())));
    device.set_minor(i64::from(rustix::fs::minor(metadata.rdev())));
    device.set_file_mode(Some(metadata.mode() & 0o7777));
    device.set_uid(Some(metadata.uid()));
    device.set_gid(Some(metadata.gid()));
    device
}
