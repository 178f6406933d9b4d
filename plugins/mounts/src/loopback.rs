//! `loop`: a file as a device.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use gantry_core::mount::Mount;
use gantry_core::mounts::{ActiveMount, MountHandler};
use gantry_core::{Error, Result, ResultExt};
use gantry_sys::loop_device::{self, LoopDevice};

/// Attaches files to loop devices. What is at the mount point is a symlink to the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackHandler;

impl MountHandler for LoopbackHandler {
    fn mount(&self, entry: &Mount, point: &Path, _before: &[ActiveMount]) -> Result<ActiveMount> {
        let read_only = entry.options.iter().any(|option| option == "ro");
        let device = LoopDevice::attach(Path::new(&entry.source), read_only)?;
        // Before it stays attached by itself, so that a crash in between leaves nothing.
        symlink(device.path(), point).with_context(|| format!("make {}", point.display()))?;
        if let Err(error) = device.keep() {
            // Nothing else to be done about it: the error below says what matters.
            drop(fs::remove_file(point));
            return Err(error);
        }
        Ok(ActiveMount {
            mount: entry.clone(),
            mounted_at: Some(SystemTime::now()),
            mount_point: point.display().to_string(),
            ..ActiveMount::default()
        })
    }

    fn unmount(&self, point: &Path) -> Result<()> {
        let device = match fs::read_link(point) {
            Ok(device) => device,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(error).context(format!("read {}", point.display()))),
        };
        loop_device::release(&device)?;
        fs::remove_file(point).with_context(|| format!("remove {}", point.display()))
    }
}
