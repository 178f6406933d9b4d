//! Performing a mount list.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::loop_device::LoopDevice;
use gantry_sys::mount::{Attributes, set_attributes};
use rustix::mount::MountFlags;

use crate::options::Options;
use crate::unmount::Busy;
use crate::{Mount, bind, helper, overlay, target, unmount};

/// How much data `mount(2)` takes, its ending zero included. A page, and no machine's is smaller.
pub(crate) const MAX_DATA_BYTES: usize = 4096;

/// Mounts every entry of `mounts`, in order, on `root` or below it. If one fails, those before it
/// are unmounted again. Nothing is created: targets have to be there.
///
/// # Errors
/// The first that failed, with what was mounted where: `InvalidArgument` or `Unimplemented` for
/// options, before anything is mounted; `NotFound` for a missing source or target.
pub fn mount_all(mounts: &[Mount], root: &Path) -> Result<()> {
    for entry in mounts {
        Options::parse(&entry.options).with_context(|| label(entry, root))?;
    }
    for (done, entry) in mounts.iter().enumerate() {
        if let Err(error) = mount(entry, root) {
            if let Err(undo) = unmount::unmount_list(&mounts[..done], root, Busy::Detach) {
                tracing::warn!(path = %root.display(), error = %undo, "undoing mounts failed");
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Mounts one entry on `root`, or on its target below `root`.
///
/// # Errors
/// As [`mount_all`].
pub fn mount(entry: &Mount, root: &Path) -> Result<()> {
    mount_entry(entry, root).with_context(|| label(entry, root))
}

fn label(entry: &Mount, root: &Path) -> String {
    let Mount { kind, source, target, .. } = entry;
    if target.is_empty() {
        format!("mount {kind} {source:?} on {root:?}")
    } else {
        format!("mount {kind} {source:?} on {target:?} in {root:?}")
    }
}

fn mount_entry(entry: &Mount, root: &Path) -> Result<()> {
    let options = Options::parse(&entry.options)?;
    if [&entry.kind, &entry.source].iter().any(|text| text.contains('\0')) {
        return Err(Error::invalid_argument("zero byte in a mount's type or source"));
    }
    let target = target::open(root, &entry.target)?;
    if options.remount {
        remount(&options, &target)?;
    } else if options.bind {
        bind::mount(&entry.source, &options, target.as_fd())?;
    } else if let Some(helper) = helper::for_kind(&entry.kind) {
        helper.mount(entry, &target)?;
    } else if entry.kind == "overlay" {
        overlay::mount(&entry.source, &options, &target)?;
    } else {
        let data = options.data.join(",");
        if data.len() >= MAX_DATA_BYTES {
            return Err(Error::invalid_argument(format!("{} bytes of options", data.len())));
        }
        if options.id_map.is_some() {
            return Err(Error::unimplemented(format!("id-mapped mounts of type {:?}", entry.kind)));
        }
        if options.loop_device {
            let device = LoopDevice::attach(Path::new(&entry.source), options.is_read_only())?;
            let source = device.path().to_string_lossy();
            // Once mounted, the device belongs to the mount and is freed with it.
            plain(&entry.kind, &source, &options, &data, &target)?;
        } else {
            plain(&entry.kind, &entry.source, &options, &data, &target)?;
        }
    }
    if let Some(propagation) = options.propagation {
        // The target is covered by the mount now; opening it again finds the mount.
        let mount = target::open(root, &entry.target)?;
        let changes = Attributes { propagation: propagation.kind, ..Attributes::default() };
        let changed = set_attributes(mount.as_fd(), &changes, propagation.recursive);
        if let Err(error) = changed.context("set the propagation") {
            drop(mount);
            if !options.remount {
                let undo = Mount { target: entry.target.clone(), ..Mount::default() };
                // The error below says what matters.
                drop(unmount::unmount_list(&[undo], root, Busy::Detach));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// `mount(2)` of a file system.
pub(crate) fn plain(
    kind: &str,
    source: &str,
    options: &Options,
    data: &str,
    target: &std::os::fd::OwnedFd,
) -> Result<()> {
    let data = CString::new(data).map_err(|_| Error::invalid_argument("zero byte in mount options"))?;
    rustix::mount::mount(source, target::path_of(target), kind, options.flags.0, data.as_c_str())
        .map_err(|error| Error::io(io::Error::from(error)))
}

/// Changes an existing mount: only the mount itself if `bind` is given too, else its file system.
fn remount(options: &Options, target: &std::os::fd::OwnedFd) -> Result<()> {
    if options.bind {
        return bind::change(options, target.as_fd());
    }
    let data = options.data.join(",");
    if data.len() >= MAX_DATA_BYTES {
        return Err(Error::invalid_argument(format!("{} bytes of options", data.len())));
    }
    let flags: MountFlags = options.flags.0;
    rustix::mount::mount_remount(target::path_of(target), flags, data)
        .map_err(|error| Error::io(io::Error::from(error)))
}

#[cfg(test)]
mod tests;
