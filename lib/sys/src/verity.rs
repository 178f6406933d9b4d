//! fs-verity: a file that the kernel checks whenever it is read, and lets nobody change.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_core::{Result, ResultExt};

/// Source: `FS_IOC_ENABLE_VERITY` and `struct fsverity_enable_arg` of the kernel's `linux/fsverity.h`.
const FS_IOC_ENABLE_VERITY: u64 = 0x4080_6685;
const FS_VERITY_HASH_ALG_SHA256: u32 = 1;

#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// Turns it on for the file at `path`, which nobody may have open for writing. That it is on already is no error.
///
/// # Errors
/// `Unimplemented` if the file system or the kernel does not have it; `Unavailable` if somebody writes to the file.
pub fn enable(path: &Path) -> Result<()> {
    let label = || format!("turn on fs-verity for {}", path.display());
    let file = File::open(path).with_context(label)?;
    let found = file.metadata().with_context(label)?;
    // SAFETY: only asks for a number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let arg = EnableArg {
        version: 1,
        hash_algorithm: FS_VERITY_HASH_ALG_SHA256,
        // Source: containerd: as large as the kernel takes it.
        block_size: u32::try_from(found.blksize().min(page)).unwrap_or(4096),
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // SAFETY: the request reads an fsverity_enable_arg, which `arg` is and stays during the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_ENABLE_VERITY as _, &raw const arg) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let kind = match error.raw_os_error() {
        Some(libc::EEXIST) => return Ok(()),
        Some(libc::ENOTTY | libc::EOPNOTSUPP) => gantry_core::ErrorKind::Unimplemented,
        Some(libc::ETXTBSY) => gantry_core::ErrorKind::Unavailable,
        _ => gantry_core::ErrorKind::from_io(&error),
    };
    Err(gantry_core::Error::with_source(kind, error)).with_context(label)
}

/// Whether it can be turned on for files in `dir`: tried with an empty one.
pub fn is_supported(dir: &Path) -> bool {
    // Source: containerd tries in a directory of this name.
    let probe = dir.join(format!(".fsverity-check-{}", std::process::id()));
    let supported = File::create(&probe).is_ok() && enable(&probe).is_ok();
    // A file that is in the way is of no use to anyone.
    let _ = std::fs::remove_file(&probe);
    supported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<EnableArg>(), 128);
    }

    #[test]
    fn a_file_system_without_it_says_so_and_keeps_no_probe() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(!is_supported(dir.path()));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(enable(&file).unwrap_err().kind(), gantry_core::ErrorKind::Unimplemented);
        assert_eq!(enable(&dir.path().join("no")).unwrap_err().kind(), gantry_core::ErrorKind::NotFound);
    }
}
