//! One entry of an archive.

use std::time::SystemTime;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A hard link to another entry, or to a file of a lower layer.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Anything else: the type flag as it stands in the header.
    Other(u8),
}

/// A point in time as an archive holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds after that.
    pub nanos: u32,
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanos) = gantry_core::time::to_parts(time);
        Timestamp { seconds, nanos: nanos.unsigned_abs() }
    }
}

/// What the archive says about one file; its content is read from the reader.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The name as written: it may be absolute, hold `..`, or end in a slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Where a link points to.
    pub link: Vec<u8>,
    /// The permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The file's length, holes included.
    pub size_bytes: u64,
    /// When it was last changed.
    pub mtime: Timestamp,
    /// When it was last read, if the archive says so.
    pub atime: Option<Timestamp>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry of root's, without content, of the epoch's time.
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        Entry {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            mtime: Timestamp::default(),
            atime: None,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}
