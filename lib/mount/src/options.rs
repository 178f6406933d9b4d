//! The options of a mount: flags that the kernel knows, and the file system's own.

use gantry_core::{Error, Result};
use gantry_sys::user_namespace::IdRange;
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags};

/// The options of a mount, sorted out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Flags of `mount(2)`, but for binding, remounting and propagation.
    pub(crate) flags: Flags,
    /// Whether the source is a directory or file that is to appear elsewhere.
    pub(crate) bind: bool,
    /// Whether the mounts below the source come along.
    pub(crate) recursive: bool,
    /// Whether an existing mount is to be changed.
    pub(crate) remount: bool,
    /// The propagation asked for, if any.
    pub(crate) propagation: Option<Propagation>,
    /// Whether the source is a file to be attached to a loop device.
    pub(crate) loop_device: bool,
    /// How the ids of files are mapped, if they are.
    pub(crate) id_map: Option<IdMap>,
    /// What is left for the file system.
    pub(crate) data: Vec<String>,
}

/// How the ids of a mount's files are mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub(crate) uids: Vec<IdRange>,
    pub(crate) gids: Vec<IdRange>,
}

/// `MountFlags` with a default and comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) MountFlags);

impl Default for Flags {
    fn default() -> Self {
        Flags(MountFlags::empty())
    }
}

/// Whether mounts below a mount appear in its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) kind: MountPropagationFlags,
    pub(crate) recursive: bool,
}

/// What an option name means.
#[derive(Clone, Copy)]
enum Meaning {
    Set(MountFlags),
    Clear(MountFlags),
    Nothing,
    Bind { recursive: bool },
    Remount,
    Propagate(MountPropagationFlags, bool),
    Loop,
}

/// Source: mount(8), "filesystem-independent mount options", as far as containerd names them; the
/// propagation options are runc's.
const NAMES: &[(&str, Meaning)] = &[
    ("async", Meaning::Clear(MountFlags::SYNCHRONOUS)),
    ("atime", Meaning::Clear(MountFlags::NOATIME)),
    ("bind", Meaning::Bind { recursive: false }),
    ("defaults", Meaning::Nothing),
    ("dev", Meaning::Clear(MountFlags::NODEV)),
    ("diratime", Meaning::Clear(MountFlags::NODIRATIME)),
    ("dirsync", Meaning::Set(MountFlags::DIRSYNC)),
    ("exec", Meaning::Clear(MountFlags::NOEXEC)),
    ("loop", Meaning::Loop),
    ("mand", Meaning::Set(MountFlags::PERMIT_MANDATORY_FILE_LOCKING)),
    ("noatime", Meaning::Set(MountFlags::NOATIME)),
    ("nodev", Meaning::Set(MountFlags::NODEV)),
    ("nodiratime", Meaning::Set(MountFlags::NODIRATIME)),
    ("noexec", Meaning::Set(MountFlags::NOEXEC)),
    ("nomand", Meaning::Clear(MountFlags::PERMIT_MANDATORY_FILE_LOCKING)),
    ("norelatime", Meaning::Clear(MountFlags::RELATIME)),
    ("nostrictatime", Meaning::Clear(MountFlags::STRICTATIME)),
    ("nosuid", Meaning::Set(MountFlags::NOSUID)),
    ("nosymfollow", Meaning::Set(MountFlags::NOSYMFOLLOW)),
    ("private", Meaning::Propagate(MountPropagationFlags::PRIVATE, false)),
    ("rbind", Meaning::Bind { recursive: true }),
    ("relatime", Meaning::Set(MountFlags::RELATIME)),
    ("remount", Meaning::Remount),
    ("ro", Meaning::Set(MountFlags::RDONLY)),
    ("rprivate", Meaning::Propagate(MountPropagationFlags::PRIVATE, true)),
    ("rshared", Meaning::Propagate(MountPropagationFlags::SHARED, true)),
    ("rslave", Meaning::Propagate(MountPropagationFlags::DOWNSTREAM, true)),
    ("runbindable", Meaning::Propagate(MountPropagationFlags::UNBINDABLE, true)),
    ("rw", Meaning::Clear(MountFlags::RDONLY)),
    ("shared", Meaning::Propagate(MountPropagationFlags::SHARED, false)),
    ("slave", Meaning::Propagate(MountPropagationFlags::DOWNSTREAM, false)),
    ("strictatime", Meaning::Set(MountFlags::STRICTATIME)),
    ("suid", Meaning::Clear(MountFlags::NOSUID)),
    ("symfollow", Meaning::Clear(MountFlags::NOSYMFOLLOW)),
    ("sync", Meaning::Set(MountFlags::SYNCHRONOUS)),
    ("unbindable", Meaning::Propagate(MountPropagationFlags::UNBINDABLE, false)),
];

impl Options {
    /// Sorts out `options`; of two that contradict each other the later counts. What no name here
    /// means goes to the file system, in order.
    ///
    /// # Errors
    /// `InvalidArgument` for maps of ids that make no sense, a mount manager's options, and strings
    /// with a zero byte; `Unimplemented` for a map given as a user namespace.
    pub fn parse<S: AsRef<str>>(options: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut parsed = Options::default();
        for option in options {
            parsed.add(option.as_ref())?;
        }
        if parsed.id_map.as_ref().is_some_and(|map| map.uids.is_empty() || map.gids.is_empty()) {
            return Err(Error::invalid_argument("uidmap and gidmap are given together or not at all"));
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        if option.contains('\0') {
            return Err(Error::invalid_argument(format!("zero byte in mount option {option:?}")));
        }
        match NAMES.iter().find(|(name, _)| *name == option).map(|(_, meaning)| *meaning) {
            Some(Meaning::Set(flag)) => self.flags.0 |= flag,
            Some(Meaning::Clear(flag)) => self.flags.0 &= !flag,
            Some(Meaning::Nothing) => {}
            Some(Meaning::Bind { recursive }) => {
                self.bind = true;
                self.recursive |= recursive;
            }
            Some(Meaning::Remount) => self.remount = true,
            Some(Meaning::Propagate(kind, recursive)) => {
                self.propagation = Some(Propagation { kind, recursive });
            }
            Some(Meaning::Loop) => self.loop_device = true,
            None if option.starts_with("idmap=") => {
                return Err(Error::unimplemented(format!("mount option {option:?}")));
            }
            None if option.starts_with("uidmap=") => {
                self.id_map.get_or_insert_default().uids = ranges(option)?;
            }
            None if option.starts_with("gidmap=") => {
                self.id_map.get_or_insert_default().gids = ranges(option)?;
            }
            None if option.starts_with("X-containerd.") => {
                return Err(Error::invalid_argument(format!("{option:?} is for a mount manager")));
            }
            None if option.is_empty() => {}
            None => self.data.push(option.to_owned()),
        }
        Ok(())
    }

    /// Whether the mount is to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags.0.contains(MountFlags::RDONLY)
    }

    /// Whether the source is a directory or file that is to appear elsewhere.
    pub fn is_bind(&self) -> bool {
        self.bind
    }

    /// What no flag means, in order: the file system's own options.
    pub fn data(&self) -> &[String] {
        &self.data
    }

    /// The flags that belong to a mount rather than to its file system.
    pub(crate) fn attributes(&self) -> MountAttrFlags {
        const PAIRS: [(MountFlags, MountAttrFlags); 8] = [
            (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            (MountFlags::NOSYMFOLLOW, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
            (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
            (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        ];
        let mut flags = self.flags.0;
        if flags.contains(MountFlags::STRICTATIME) {
            // The two access time attributes are values of one field, of which mount(2) takes this.
            flags &= !MountFlags::NOATIME;
        }
        PAIRS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, attribute)| *attribute).collect()
    }

    /// The flags that belong to a file system, by the names that `fsconfig` knows.
    pub(crate) fn superblock_flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = self.flags.0;
        [
            (MountFlags::RDONLY, "ro"),
            (MountFlags::SYNCHRONOUS, "sync"),
            (MountFlags::DIRSYNC, "dirsync"),
            (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, "mand"),
        ]
        .into_iter()
        .filter(move |(flag, _)| flags.contains(*flag))
        .map(|(_, name)| name)
    }
}

/// The ranges of `uidmap=0:1000:65536,...`: first id inside, first outside, how many.
///
/// Source: what containerd's overlayfs snapshotter answers for snapshots with mapping labels.
fn ranges(option: &str) -> Result<Vec<IdRange>> {
    let list = option.split_once('=').map_or("", |(_, list)| list);
    let range = |text: &str| -> Option<IdRange> {
        let mut numbers = text.split(':').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let range = IdRange { inside: next()?, outside: next()?, count: next()? };
        numbers.next().is_none().then_some(range)
    };
    list.split(',')
        .map(|text| range(text).ok_or_else(|| Error::invalid_argument(format!("mount option {option:?}"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::ErrorKind;

    #[test]
    fn names_become_flags_and_the_rest_is_kept_in_order() {
        let options =
            Options::parse(["rbind", "ro", "nosuid", "index=off", "a,b", "defaults", "rslave"]).unwrap();
        assert!(options.bind && options.recursive && options.is_read_only());
        assert_eq!(options.data, ["index=off", "a,b"]);
        assert_eq!(
            options.attributes(),
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID
        );
        assert_eq!(options.superblock_flags().collect::<Vec<_>>(), ["ro"]);
        let slave = Propagation { kind: MountPropagationFlags::DOWNSTREAM, recursive: true };
        assert_eq!(options.propagation, Some(slave));
    }

    #[test]
    fn the_later_of_two_opposites_counts() {
        assert!(!Options::parse(["ro", "rw"]).unwrap().is_read_only());
        assert!(Options::parse(["rw", "ro"]).unwrap().is_read_only());
        assert_eq!(Options::parse(["noexec", "exec"]).unwrap(), Options::default());
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let kind = |option| Options::parse([option]).unwrap_err().kind();
        assert_eq!(kind("idmap=/proc/1/ns/user"), ErrorKind::Unimplemented);
        for map in
            ["uidmap=0:1000:1", "uidmap=", "gidmap=0:1", "gidmap=0:1:2:3", "uidmap=0:-1:2", "uidmap=0:0:1,"]
        {
            assert_eq!(kind(map), ErrorKind::InvalidArgument, "{map}");
        }
        let map = Options::parse(["uidmap=0:1000:1,5:6:7", "gidmap=0:2000:1"]).unwrap().id_map.unwrap();
        assert_eq!(map.uids[1], IdRange { inside: 5, outside: 6, count: 7 });
        assert_eq!(map.gids, [IdRange { inside: 0, outside: 2000, count: 1 }]);
        assert_eq!(kind("X-containerd.mkdir.path=/a"), ErrorKind::InvalidArgument);
        assert_eq!(kind("a\0b"), ErrorKind::InvalidArgument);
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
