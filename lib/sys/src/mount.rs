//! The mount calls that rustix lacks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::{MountAttrFlags, MountPropagationFlags};

/// Changes to the attributes of a mount.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    /// Attributes to set. An access time attribute replaces the present one.
    pub set: MountAttrFlags,
    /// Attributes to clear.
    pub clear: MountAttrFlags,
    /// Propagation to set: one of private, shared, downstream, unbindable.
    pub propagation: MountPropagationFlags,
    /// Maps the ids of files by this user namespace. Only for mounts that are not attached yet.
    pub user_namespace: Option<BorrowedFd<'a>>,
}

impl Default for Attributes<'_> {
    fn default() -> Self {
        Attributes {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: MountPropagationFlags::empty(),
            user_namespace: None,
        }
    }
}

/// Source: `struct mount_attr` of the kernel's `linux/mount.h`.
#[repr(C)]
struct RawAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Changes the mount that `mount` is open on (by `open_tree` or `O_PATH`), and with `recursive` all
/// mounts below it, at once: either all change or none.
///
/// # Errors
/// `EINVAL` for attributes that this file system or kernel lacks; `EPERM` without the right.
pub fn set_attributes(mount: BorrowedFd<'_>, changes: &Attributes<'_>, recursive: bool) -> io::Result<()> {
    let access_time = MountAttrFlags::MOUNT_ATTR__ATIME
        | MountAttrFlags::MOUNT_ATTR_NOATIME
        | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let mut raw = RawAttributes {
        set: u64::from(changes.set.bits()),
        clear: u64::from(changes.clear.bits()),
        propagation: u64::from((changes.propagation - MountPropagationFlags::REC).bits()),
        user_namespace: 0,
    };
    if changes.set.intersects(access_time) {
        // These three share bits; the kernel demands that they are cleared first.
        raw.clear |= u64::from(MountAttrFlags::MOUNT_ATTR__ATIME.bits());
    }
    if let Some(user_namespace) = changes.user_namespace {
        raw.set |= u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
        raw.user_namespace = user_namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static string, and the structure is valid, outlives the call, and has
    // the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
