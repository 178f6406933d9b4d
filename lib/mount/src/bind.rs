//! Bind mounts: a directory or file that appears a second time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use gantry_core::{Result, ResultExt};
use gantry_sys::mount::{Attributes, set_attributes};
use gantry_sys::user_namespace;
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::options::{IdMap, Options};

/// Binds `source` to `target`. The mount has all its attributes before anybody can reach it, so a
/// read-only one is never writable for a moment.
pub(crate) fn mount(source: &str, options: &Options, target: BorrowedFd<'_>) -> Result<()> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, source, flags).map_err(io::Error::from);
    let tree = tree.with_context(|| format!("open {source:?}"))?;
    if let Some(map) = &options.id_map {
        map_ids(tree.as_fd(), map)?;
    }
    change(options, tree.as_fd())?;
    attach(tree.as_fd(), target)
}

/// Maps the ids of a detached mount's files.
pub(crate) fn map_ids(tree: BorrowedFd<'_>, map: &IdMap) -> Result<()> {
    let namespace = user_namespace::create(&map.uids, &map.gids)?;
    let changes = Attributes { user_namespace: Some(namespace.as_fd()), ..Attributes::default() };
    set_attributes(tree, &changes, false).context("map the ids of a mount")
}

/// Gives a mount the attributes that `options` ask for, and leaves the others as they are. Mounts
/// below it keep theirs, as with `mount(2)`.
pub(crate) fn change(options: &Options, mount: BorrowedFd<'_>) -> Result<()> {
    let mut changes = Attributes { set: options.attributes(), ..Attributes::default() };
    if options.remount && !options.is_read_only() {
        changes.clear = MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if changes.set.is_empty() && changes.clear.is_empty() {
        return Ok(());
    }
    set_attributes(mount, &changes, false).context("set mount attributes")
}

/// Puts a detached mount at `target`.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(io::Error::from).context("attach the mount")
}
