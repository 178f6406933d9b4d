//! Extended attributes by descriptor.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The largest value, and the largest list of names, that Linux has. Source: xattr(7), "VFS imposed limits".
const MAX_BYTES: usize = 64 << 10;

/// The value of `name`; `None` if there is none or the file system has no such thing. `fd` may be opened with `O_PATH`.
pub(crate) fn get(fd: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let path = through_proc(&fd);
    let mut value = vec![0u8; 256];
    loop {
        match rustix::fs::getxattr(&path, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_BYTES => value.resize(MAX_BYTES, 0),
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

/// All names; none if the file system has no such thing. `fd` may be opened with `O_PATH`.
pub(crate) fn list(fd: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let path = through_proc(&fd);
    let mut names = vec![0u8; 1024];
    loop {
        match rustix::fs::listxattr(&path, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names
                    .split(|byte| *byte == 0)
                    .filter(|name| !name.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect());
            }
            Err(Errno::RANGE) if names.len() < MAX_BYTES => names.resize(MAX_BYTES, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sets `name` to `value`. `fd` may be opened with `O_PATH`, also on a symbolic link.
pub(crate) fn set(fd: impl AsFd, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::setxattr(through_proc(&fd), name, value, XattrFlags::empty())
}

/// The file that `fd` is open on, by a name that follows no other link.
pub(crate) fn through_proc(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
