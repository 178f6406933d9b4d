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

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of one block, with one file in it. Source: the kernel's documentation of EROFS, "On-disk details".
    fn image() -> Vec<u8> {
        let mut image = vec![0_u8; 4096];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        let inode = |mode: u16, links: u16, size: u32, number: u32| {
            let mut inode = Vec::new();
            // A compact inode whose data follows it.
            for half in [4_u16, 0, mode, links] {
                inode.extend(half.to_le_bytes());
            }
            for word in [size, 0, 0, number, 0, 0] {
                inode.extend(word.to_le_bytes());
            }
            inode
        };
        let (root, file) = (36_u64, 39_u64);
        put(1024, &0xe0f5_e1e2_u32.to_le_bytes());
        put(1024 + 12, &[12]);
        put(1024 + 14, &(root as u16).to_le_bytes());
        put(1024 + 16, &2_u64.to_le_bytes());
        put(1024 + 36, &1_u32.to_le_bytes());
        let mut entries = Vec::new();
        for (node, name_at, kind) in [(root, 36_u16, 2_u8), (root, 37, 2), (file, 39, 1)] {
            entries.extend(node.to_le_bytes());
            entries.extend(name_at.to_le_bytes());
            entries.extend([kind, 0]);
        }
        entries.extend(b"...file");
        put(root as usize * 32, &inode(0o40755, 2, entries.len() as u32, 1));
        put(root as usize * 32 + 32, &entries);
        put(file as usize * 32, &inode(0o100_644, 1, 5, 2));
        put(file as usize * 32 + 32, b"erofs");
        image
    }

    #[test]
    fn an_image_is_mounted_from_its_file_and_from_a_device() {
        gantry_testkit::root!();
        if !ErofsHandler::is_supported() {
            gantry_testkit::skip!("the kernel has no EROFS");
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, point) = (dir.path().join("image"), dir.path().join("point"));
        fs::write(&source, image()).unwrap();
        let entry = Mount {
            kind: "erofs".into(),
            source: source.display().to_string(),
            target: String::new(),
            options: vec!["ro".into(), "loop".into()],
        };
        let active = ErofsHandler.mount(&entry, &point, &[]).unwrap();
        assert_eq!(active.mount_point, point.display().to_string());
        assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "erofs");
        ErofsHandler.unmount(&point).unwrap();
        ErofsHandler.unmount(&point).unwrap();

        let options = vec!["ro".into()];
        let on_device = mount_devices(Mount { options, ..entry.clone() }, &point).unwrap();
        assert!(on_device.source.starts_with("/dev/loop"), "{}", on_device.source);
        assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "erofs");
        ErofsHandler.unmount(&point).unwrap();
        let device = Path::new("/sys/block").join(on_device.source.trim_start_matches("/dev/"));
        gantry_testkit::eventually("the device to let go", || {
            (!device.join("loop/backing_file").exists()).then_some(())
        });

        let verity = Mount { options: vec![format!("{DM_VERITY}/x")], ..entry };
        let refused = ErofsHandler.mount(&verity, &dir.path().join("other"), &[]).unwrap_err();
        assert_eq!(refused.kind(), gantry_core::ErrorKind::Unimplemented);
    }
}
