//! Unix sockets: paths of any length, who is at the other end, descriptors sent across.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// How long a path the kernel takes, less a margin.
///
/// Source: `sun_path` of unix(7) holds 108 bytes with the ending zero; containerd stays below 104.
const MAX_PATH_BYTES: usize = 104;

/// How many descriptors one message may bring; more are closed.
const MAX_DESCRIPTORS: usize = 4;

/// An address for a path, and the directory that must stay open while it is used.
fn address(path: &Path) -> Result<(SocketAddrUnix, Option<OwnedFd>)> {
    let unusable = || Error::invalid_argument(format!("socket path {path:?}"));
    let (path, dir) = if path.as_os_str().len() <= MAX_PATH_BYTES {
        (path.to_owned(), None)
    } else {
        let parent = path.parent().ok_or_else(unusable)?;
        let name = path.file_name().ok_or_else(unusable)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(io::Error::from);
        let dir = dir.with_context(|| format!("open {parent:?}"))?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        (short, Some(dir))
    };
    let address = SocketAddrUnix::new(path.as_path()).map_err(|_| unusable())?;
    Ok((address, dir))
}

fn stream_socket() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(io::Error::from)
        .context("create a socket")
}

/// Listens at `path`, which gets the file mode `mode` from its first moment, but for the umask.
/// The socket is non-blocking, ready to be handed to tokio.
///
/// # Errors
/// `AlreadyExists` if there is something at `path`, be it a socket nobody listens on.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener> {
    let make = || -> Result<UnixListener> {
        let (address, _dir) = address(path)?;
        let socket = stream_socket()?;
        // The kernel gives the file the mode that the socket has when it is bound.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
        rustix::net::bind(&socket, &address).map_err(|error| match error {
            rustix::io::Errno::ADDRINUSE => {
                Error::with_source(ErrorKind::AlreadyExists, io::Error::from(error))
            }
            error => Error::io(error.into()),
        })?;
        // But for what the process's mask took away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        rustix::net::listen(&socket, 4096).map_err(io::Error::from)?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    make().with_context(|| format!("listen at {path:?}"))
}

/// Connects to the socket at `path`. The stream blocks; set it otherwise before handing it to tokio.
///
/// # Errors
/// `NotFound` if there is none; `Unavailable` if nobody listens or the listener's queue is full.
pub fn connect(path: &Path) -> Result<UnixStream> {
    let make = || -> Result<UnixStream> {
        let (address, _dir) = address(path)?;
        let socket = stream_socket()?;
        connect_to(&socket, &address)?;
        Ok(UnixStream::from(socket))
    };
    make().with_context(|| format!("connect to {path:?}"))
}

/// Connects to the abstract socket `name` (without the leading zero byte).
///
/// # Errors
/// `Unavailable` if nobody listens; `InvalidArgument` if the name is too long.
pub fn connect_abstract(name: &[u8]) -> Result<UnixStream> {
    let make = || -> Result<UnixStream> {
        let address = SocketAddrUnix::new_abstract_name(name)
            .map_err(|_| Error::invalid_argument("name is too long"))?;
        let socket = stream_socket()?;
        connect_to(&socket, &address)?;
        Ok(UnixStream::from(socket))
    };
    make().with_context(|| format!("connect to abstract socket {:?}", String::from_utf8_lossy(name)))
}

fn connect_to(socket: &OwnedFd, address: &SocketAddrUnix) -> Result<()> {
    // Non-blocking, since connecting to a full queue would otherwise block for ever.
    rustix::io::ioctl_fionbio(socket, true).map_err(io::Error::from)?;
    rustix::net::connect(socket, address).map_err(|error| match error {
        rustix::io::Errno::CONNREFUSED | rustix::io::Errno::AGAIN => {
            Error::with_source(ErrorKind::Unavailable, io::Error::from(error))
        }
        error => Error::io(error.into()),
    })?;
    rustix::io::ioctl_fionbio(socket, false).map_err(io::Error::from)?;
    Ok(())
}

/// Who connected a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process; absent if that is outside our pid namespace.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Who is at the other end of a connected Unix socket.
///
/// # Errors
/// When `socket` is no Unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    // rustix has this, but cannot express a pid of 0.
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are to values that outlive the call, and the length is that of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = (credentials.pid > 0).then_some(credentials.pid);
    Ok(Peer { pid, uid: credentials.uid, gid: credentials.gid })
}

/// What one receive brought.
#[derive(Debug)]
pub struct Received {
    /// How many bytes were put into the buffer; 0 is the end of the stream.
    pub bytes: usize,
    /// Descriptors that came along.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives bytes and descriptors, as an OCI runtime sends a container's terminal to its console
/// socket. On a non-blocking socket `WouldBlock` says that nothing is there.
///
/// # Errors
/// `InvalidData` if more descriptors came than [`receive`] takes; none is kept then.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            descriptors.extend(fds);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors in one message"));
    }
    Ok(Received { bytes: message.bytes, descriptors })
}

/// Sends `bytes`, which must not be empty, and a copy of `descriptor`.
///
/// # Errors
/// When the other end is closed, or would have to be waited for on a non-blocking socket.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptor: impl AsFd) -> io::Result<usize> {
    let fds = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(rustix::net::sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Takes over a descriptor that this program was started with, for example a listening socket.
///
/// # Errors
/// `InvalidArgument` for the standard streams, or if nothing is open at that number.
pub fn inherited(number: i32) -> Result<OwnedFd> {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};
    static TAKEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
    let unusable = || Error::invalid_argument(format!("inherited descriptor {number}"));
    if number < 3 {
        return Err(unusable());
    }
    // One that this program opened itself is close-on-exec, as all of Rust's are, and has an owner.
    // SAFETY: F_GETFD only asks about a number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(unusable());
    }
    if !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Err(unusable());
    }
    // SAFETY: the descriptor is open, was inherited (it is not close-on-exec), and the set above lets
    // each number be taken once, so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(io::Error::from)?;
    Ok(fd)
}

/// Whether `path` is too long for the kernel's own socket address.
pub fn is_long(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() > MAX_PATH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn sockets_work_at_paths_beyond_the_kernels_limit() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(90)).join("e".repeat(90));
        std::fs::create_dir_all(&deep).unwrap();
        for path in [deep.join("socket"), dir.path().join("socket")] {
            assert_eq!(connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
            let listener = listen(&path, 0o600).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(listen(&path, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
            let mut stream = connect(&path).unwrap();
            let (mut other, _) = listener.accept().unwrap();
            stream.write_all(b"x").unwrap();
            other.read_exact(&mut [0]).unwrap();
            let peer = peer(&other).unwrap();
            assert_eq!(peer.pid, Some(rustix::process::getpid().as_raw_pid()));
            assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
            drop(listener);
            // A child that another test forks holds a copy until it has exec'd.
            while connect(&path).is_ok() {
                std::thread::yield_now();
            }
            assert_eq!(connect(&path).unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }

    #[test]
    fn a_descriptor_crosses_a_socket() {
        let (a, b) = UnixStream::pair().unwrap();
        let (ours, theirs) = crate::process::pipe().unwrap();
        send(&a, b"console", &theirs).unwrap();
        drop(theirs);
        let mut buffer = [0; 32];
        let received = receive(&b, &mut buffer).unwrap();
        assert_eq!(&buffer[..received.bytes], b"console");
        assert_eq!(received.descriptors.len(), 1);
        rustix::io::write(&received.descriptors[0], b"y").unwrap();
        assert_eq!(rustix::io::read(&ours, &mut buffer).unwrap(), 1);
    }

    #[test]
    fn a_descriptor_of_our_own_is_not_inherited() {
        let (ours, _theirs) = crate::process::pipe().unwrap();
        assert_eq!(inherited(ours.as_raw_fd()).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(inherited(1).is_err() && inherited(-1).is_err() && inherited(1 << 20).is_err());
    }
}
