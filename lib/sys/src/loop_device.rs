//! Loop devices: a file as a disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};

/// How often another free device is asked for when somebody else was quicker.
const MAX_TRIES: usize = 64;

/// Source: the kernel's `linux/loop.h`.
const LOOP_SET_STATUS64: u64 = 0x4C04;
const LOOP_GET_STATUS64: u64 = 0x4C05;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Source: `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// Source: `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A file attached to a loop device. The device lets go of the file when this is dropped and nothing
/// has it mounted or open.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    // Keeps the device from clearing itself until it is mounted.
    _device: File,
}

impl LoopDevice {
    /// Attaches the file at `path` to a free device.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; `InvalidArgument` if it is no regular file or block
    /// device; `Unimplemented` if the machine has no loop devices.
    pub fn attach(path: &Path, read_only: bool) -> Result<Self> {
        // Non-blocking, so that a FIFO in its place does not hold us up.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut options = File::options();
        let options = std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
        let file = options.read(true).write(!read_only).open(path);
        let file = file.with_context(|| format!("open {path:?}"))?;
        if !file.metadata().with_context(|| format!("look at {path:?}"))?.is_file() {
            return Err(Error::invalid_argument(format!("{path:?} is no regular file")));
        }
        attach(file.into(), read_only).with_context(|| format!("attach {path:?} to a loop device"))
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file attached until [`release`] is called.
    ///
    /// # Errors
    /// Those of the system; the file is let go of then.
    pub fn keep(self) -> Result<()> {
        set_flag(&self._device, &self.path, LO_FLAGS_AUTOCLEAR, false)
    }
}

/// Lets the device at `path` go of its file once nothing has it mounted or open. A device without a file, or that is not there,
/// is no error.
///
/// # Errors
/// `InvalidArgument` if `path` is no loop device.
pub fn release(path: &Path) -> Result<()> {
    let name =
        path.strip_prefix("/dev").ok().and_then(Path::to_str).and_then(|name| name.strip_prefix("loop"));
    if !name.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Error::invalid_argument(format!("{path:?} is no loop device")));
    }
    let device = match File::open(path) {
        Ok(device) => device,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(error).context(format!("open {path:?}"))),
    };
    match set_flag(&device, path, LO_FLAGS_AUTOCLEAR, true) {
        Err(error) if error.os_error() == Some(libc::ENXIO) => Ok(()),
        done => done,
    }
}

fn set_flag(device: &File, path: &Path, flag: u32, on: bool) -> Result<()> {
    let failed = |step: &str| Error::io(io::Error::last_os_error()).context(format!("{step} {path:?}"));
    // SAFETY: the structure is plain numbers for which all zeroes is a valid value.
    let mut info: LoopInfo = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes a loop_info64, which `info` is and stays during the call.
    let asked = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
    if asked != 0 {
        return Err(failed("look at"));
    }
    info.flags = if on { info.flags | flag } else { info.flags & !flag };
    // SAFETY: the request reads a loop_info64, which `info` is and stays during the call.
    let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64 as _, &raw const info) };
    if set == 0 { Ok(()) } else { Err(failed("set a flag of")) }
}

fn attach(file: OwnedFd, read_only: bool) -> Result<LoopDevice> {
    const CONTROL: &str = "/dev/loop-control";
    let control = File::options().read(true).write(true).open(CONTROL).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let error = Error::io(error);
        if missing { error.with_kind(gantry_core::ErrorKind::Unimplemented) } else { error }
            .context(format!("open {CONTROL}"))
    })?;
    for _ in 0..MAX_TRIES {
        // SAFETY: this request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(Error::io(io::Error::last_os_error()).context("find a free loop device"));
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(!read_only).open(&path);
        let device = device.with_context(|| format!("open {path:?}"))?;
        let flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
        // SAFETY: the structure is plain numbers for which all zeroes is a valid value.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = file.as_raw_fd() as u32;
        config.info.flags = flags;
        // SAFETY: the request reads a loop_config, which `config` is and stays during the call.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
        if done == 0 {
            return Ok(LoopDevice { path, _device: device });
        }
        let error = io::Error::last_os_error();
        // Somebody else took it between the two requests.
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(Error::io(error).context(format!("configure {path:?}")));
        }
    }
    Err(Error::unavailable("others take every free loop device"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::ErrorKind;
    use std::io::Read;

    #[test]
    fn a_file_is_read_through_its_device() {
        gantry_testkit::root!();
        if !Path::new("/dev/loop-control").exists() {
            gantry_testkit::skip!("no loop devices");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, b"disk".repeat(4096)).unwrap();
        let device = LoopDevice::attach(&path, true).unwrap();
        let mut start = [0; 4];
        File::open(device.path()).unwrap().read_exact(&mut start).unwrap();
        assert_eq!(&start, b"disk");
        let other = LoopDevice::attach(&path, false).unwrap();
        assert_ne!(device.path(), other.path());
        let kept = device.path().to_owned();
        device.keep().unwrap();
        let backing = Path::new("/sys/block").join(kept.file_name().unwrap()).join("loop/backing_file");
        assert!(backing.exists(), "it stays attached");
        for _ in 0..2 {
            release(&kept).unwrap();
        }
        gantry_testkit::eventually("the device to let go", || (!backing.exists()).then_some(()));
        assert_eq!(release(dir.path()).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let error = LoopDevice::attach(dir.path(), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(LoopDevice::attach(&dir.path().join("no"), true).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
