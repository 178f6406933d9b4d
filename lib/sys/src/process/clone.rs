//! The fork itself.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The child's stack. It calls a handful of shallow functions.
const STACK_BYTES: usize = 64 * 1024;

/// The child is born in the cgroup that the arguments name; a constant of libc's that does not fit its type.
///
/// Source: `CLONE_INTO_CGROUP` of the kernel's `linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child does; it never returns.
pub(super) type Child = extern "C" fn(*mut c_void) -> c_int;

/// A child that shares this process's memory, and a descriptor of it. This thread stands still until the child has
/// exec'd or ended. With `cgroup`, a directory of cgroup v2, it is born inside that: nothing is moved, so nothing waits
/// until the kernel may move processes.
///
/// # Errors
/// The kernel's; `Unsupported` if it cannot give birth in a cgroup, or nobody taught us how on this architecture.
///
/// # Safety
/// `shared` is what `child` takes, and lives until this returns; `child` only makes system calls.
pub(super) unsafe fn clone(
    child: Child,
    shared: *mut c_void,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(c_int, OwnedFd)> {
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK_BYTES / 16);
    let mut pidfd: c_int = -1;
    let pid = match cgroup {
        None => {
            let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
            // SAFETY: the caller vouches for `child` and `shared`; `stack` outlives the child's use of it, since
            // CLONE_VFORK holds this thread.
            let pid = unsafe { libc::clone(child, top.cast(), flags, shared, &raw mut pidfd) };
            if pid < 0 {
                return Err(io::Error::last_os_error());
            }
            pid
        }
        Some(cgroup) => {
            let room = stack.spare_capacity_mut();
            // SAFETY: all zero is a valid value of this structure of numbers.
            let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
            args.flags = u64::from(flags.unsigned_abs()) | CLONE_INTO_CGROUP;
            args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
            args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
            args.stack = room.as_mut_ptr().expose_provenance() as u64;
            args.stack_size = (size_of_val(room)) as u64;
            args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
            // SAFETY: as above; the stack's end is aligned as a call needs it, since its items are.
            let result = unsafe { clone3(&args, child, shared) };
            match c_int::try_from(result).unwrap_or(c_int::MIN) {
                pid @ 1.. => pid,
                error => return Err(unsupported(io::Error::from_raw_os_error(-error))),
            }
        }
    };
    // SAFETY: the call succeeded with CLONE_PIDFD, so it stored a new descriptor that nobody owns yet.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Source: clone(2), and the seccomp profiles of containers that this process may run in: both say that a call is not
/// known in these ways.
fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::E2BIG | libc::EPERM) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

/// The system call, whose child goes on with `child` on the stack that `args` names. Returns the child's id, or a
/// negative error number.
///
/// # Safety
/// As for [`clone`]; `args` names a stack of its own.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &libc::clone_args, child: Child, shared: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: the parent comes out as from any system call, and what the child does is the caller's word. The child's
    // registers are this function's, but for its stack.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {shared}",
            "call {child}",
            "ud2",
            "2:",
            shared = in(reg) shared,
            child = in(reg) child,
            inout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &libc::clone_args, child: Child, shared: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {shared}",
            "blr {child}",
            "brk #1",
            "2:",
            shared = in(reg) shared,
            child = in(reg) child,
            inout("x0") std::ptr::from_ref(args) => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    result
}

/// As above, where nobody has written it yet.
///
/// # Safety
/// Always safe.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &libc::clone_args, _: Child, _: *mut c_void) -> isize {
    -(libc::ENOSYS as isize)
}
