//! `erofs`: read-only images, mounted from the file itself where the kernel can, else from a loop device.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use gantry_core::mount::Mount;
use gantry_core::mounts::{ActiveMount, MountHandler};
use gantry_core::{Error, Result, ResultExt};
use gantry_mount::Busy;
use gantry_sys::loop_device::LoopDevice;

/// Mounts EROFS images.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErofsHandler;

/// What the kernel says to a file where it wants a block device. Source: fs/super.c since Linux 6.12, mount(2).
const ENOTBLK: i32 = rustix::io::Errno::NOTBLK.raw_os_error();

const DM_VERITY: &str = "X-containerd.dmverity=";

impl ErofsHandler {
    /// Whether the running kernel has EROFS now.
    pub fn is_supported() -> bool {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.lines().any(|line| line.split_whitespace().last() == Some("erofs"))
    }
}

impl MountHandler for ErofsHandler {
    fn mount(&self, entry: &Mount, point: &Path, _before: &[ActiveMount]) -> Result<ActiveMount> {
        let mut entry = entry.clone();
        if entry.options.iter().any(|option| option.starts_with(DM_VERITY)) {
            return Err(Error::unimplemented(format!("EROFS image {:?}: dm-verity", entry.source)));
        }
        entry.options.retain(|option| option != "loop");
        fs::create_dir(point).with_context(|| format!("make {}", point.display()))?;
        match gantry_mount::mount(&entry, point) {
            Err(error) if error.os_error() == Some(ENOTBLK) => entry = mount_devices(entry, point)?,
            done => done?,
        }
        Ok(ActiveMount {
            mount: entry,
            mounted_at: Some(SystemTime::now()),
            mount_point: point.display().to_string(),
            ..ActiveMount::default()
        })
    }

    fn unmount(&self, point: &Path) -> Result<()> {
        gantry_mount::unmount_recursive(point, Busy::Wait)
    }
}

/// Mounts the image and its `device=` blobs from loop devices, which go with the mount.
fn mount_devices(mut entry: Mount, point: &Path) -> Result<Mount> {
    let mut devices = Vec::new();
    let mut attach = |path: &str| -> Result<String> {
        let device = LoopDevice::attach(Path::new(path), true)?;
        let path = device.path().display().to_string();
        devices.push(device);
        Ok(path)
    };
    entry.source = attach(&entry.source)?;
    for option in &mut entry.options {
        if let Some(blob) = option.strip_prefix("device=") {
            *option = format!("device={}", attach(blob)?);
        }
    }
    gantry_mount::mount(&entry, point)?;
    Ok(entry)
}
