//! Mounts: what a snapshotter answers and a runtime performs.

/// One entry of a mount list, in the form of `/etc/fstab`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The file system's type, for example `overlay` or `bind`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Where, below the root the list is mounted on; empty means the root itself.
    pub target: String,
    /// Options such as `ro`, `rbind`, `lowerdir=...`.
    pub options: Vec<String>,
}
