//! Overlay mounts of any number of layers.
//!
//! `mount(2)` takes one page of options, `fsconfig` strings of 255 bytes. A list that fits a page
//! goes to `mount(2)`, in one call, and shows in `/proc/self/mountinfo` as everybody expects.
//! A longer one goes to the new mount API, a layer at a time, where the kernel can do that
//! (`lowerdir+`, Linux 6.8), else to `mount(2)` with layers relative to a directory that a thread of
//! its own has entered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::mount::{Attributes, set_attributes};
use gantry_sys::namespace::{self, in_directory};
use gantry_sys::user_namespace;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use crate::options::{IdMap, Options};
use crate::perform::{MAX_DATA_BYTES, plain};
use crate::{bind, target, volatile};

/// The longest value that `fsconfig` takes.
///
/// Source: fsconfig(2); the kernel copies up to 256 bytes with the ending zero.
const MAX_STRING_BYTES: usize = 255;

/// What overlay's options say, paths still escaped as they came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layers<'a> {
    /// Topmost first.
    lower: Vec<&'a str>,
    /// Layers that only hold data for metadata above them; after the lower ones.
    data_only: Vec<&'a str>,
    upper: Option<&'a str>,
    work: Option<&'a str>,
    /// All other options.
    other: Vec<&'a str>,
}

impl<'a> Layers<'a> {
    fn of(options: &'a Options) -> Self {
        let mut layers = Layers::default();
        for option in &options.data {
            match option.split_once('=') {
                Some(("lowerdir", list)) => {
                    (layers.lower, layers.data_only) = split(list);
                }
                Some(("upperdir", path)) => layers.upper = Some(path),
                Some(("workdir", path)) => layers.work = Some(path),
                _ => layers.other.push(option),
            }
        }
        layers
    }
}

/// Splits at colons that are not escaped. What follows a double colon is for data only.
fn split(list: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut lower, mut data_only) = (Vec::new(), Vec::new());
    let (mut start, mut escaped, mut only_data) = (0, false, false);
    for (at, byte) in list.bytes().chain([b':']).enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => {
                if at == start && at != 0 && at != list.len() {
                    only_data = true;
                } else {
                    let layers = if only_data { &mut data_only } else { &mut lower };
                    layers.push(&list[start..at]);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    (lower, data_only)
}

/// A path with its escapes taken out.
fn unescape(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    plain
}

/// Mounts an overlay at `target`.
pub(crate) fn mount(source: &str, options: &Options, target: &OwnedFd) -> Result<()> {
    let layers = Layers::of(options);
    if let Some(work) = layers.work {
        let upper = unescape(layers.upper.unwrap_or_default());
        let asked = layers.other.contains(&"volatile");
        volatile::prepare(Path::new(&unescape(work)), Path::new(&upper), asked)?;
    }
    if let Some(map) = &options.id_map {
        return mount_mapped(source, options, &layers, map, target);
    }
    mount_layers(source, options, &layers, target)
}

fn mount_layers(source: &str, options: &Options, layers: &Layers<'_>, target: &OwnedFd) -> Result<()> {
    let data = options.data.join(",");
    if data.len() < MAX_DATA_BYTES {
        return plain("overlay", source, options, &data, target);
    }
    mount_long(source, options, layers, target, supports_appending())
}

/// Mounts an overlay whose lower layers appear with other ids.
///
/// An overlay takes its layers as they are mounted, so they need mapped mounts at their paths. Those
/// are made in a mount namespace that nobody else sees and that is gone afterwards; out of it comes
/// only the finished overlay.
fn mount_mapped(
    source: &str,
    options: &Options,
    layers: &Layers<'_>,
    map: &IdMap,
    target: &OwnedFd,
) -> Result<()> {
    let place = std::fs::read_link(target::path_of(target)).context("read a descriptor's path")?;
    let overlay = namespace::in_new(&[namespace::Kind::Mount], || {
        let users = user_namespace::create(&map.uids, &map.gids)?;
        let changes = Attributes { user_namespace: Some(users.as_fd()), ..Attributes::default() };
        // All are taken before the first is covered: one layer may lie below another.
        let mut mapped = Vec::new();
        for path in layers.lower.iter().chain(&layers.data_only) {
            let path = unescape(path);
            let tree = clone_tree(&path)?;
            set_attributes(tree.as_fd(), &changes, false)
                .with_context(|| format!("map the ids of {path:?}"))?;
            mapped.push((path, tree));
        }
        for (path, tree) in &mapped {
            bind::attach(tree.as_fd(), target::open(Path::new(path), "")?.as_fd())?;
        }
        mount_layers(source, options, layers, &target::open(&place, "")?)?;
        clone_tree(&place)
    })?;
    bind::attach(overlay.as_fd(), target.as_fd())
}

/// A detached copy of the mount at `path`.
fn clone_tree(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(io::Error::from).with_context(|| format!("open {path:?}"))
}

/// Mounts a list that does not fit a page.
fn mount_long(
    source: &str,
    options: &Options,
    layers: &Layers<'_>,
    target: &OwnedFd,
    append: bool,
) -> Result<()> {
    let fits = |path: &str| unescape(path).len() <= MAX_STRING_BYTES;
    let others_fit = [layers.upper, layers.work].into_iter().flatten().all(fits);
    if append && others_fit && layers.lower.iter().chain(&layers.data_only).all(|path| fits(path)) {
        return by_layer(source, options, layers, target);
    }
    let common = common_directory(layers)?;
    let relative = relative_to(layers, common);
    let short = in_directory(Path::new(&unescape(common)), || {
        if append && others_fit && relative.lower.iter().chain(&relative.data_only).all(|path| fits(path)) {
            return by_layer(source, options, &relative, target).map(|()| true);
        }
        let data = relative.join();
        if data.len() >= MAX_DATA_BYTES {
            return Ok(false);
        }
        plain("overlay", source, options, &data, target).map(|()| true)
    })?;
    if short {
        return Ok(());
    }
    let count = layers.lower.len() + layers.data_only.len();
    Err(Error::invalid_argument(format!("{count} layers whose paths are too long for this kernel")))
}

/// The longest directory that all layers lie below, without its last slash, as escaped as they are.
fn common_directory<'a>(layers: &Layers<'a>) -> Result<&'a str> {
    let mut all = layers.lower.iter().chain(&layers.data_only);
    let first = *all.next().ok_or_else(|| Error::invalid_argument("an overlay without lowerdir"))?;
    let mut length = first.len();
    for path in all {
        length = first.bytes().zip(path.bytes()).take(length).take_while(|(a, b)| a == b).count();
    }
    // Even if one layer contains all others, it needs a name of its own.
    match first[..length.min(first.len().saturating_sub(1))].rfind('/') {
        Some(0) => Ok("/"),
        Some(end) => Ok(&first[..end]),
        None => Err(Error::invalid_argument("layers of an overlay with nothing in common")),
    }
}

fn relative_to<'a>(layers: &Layers<'a>, common: &str) -> Layers<'a> {
    let strip = |path: &&'a str| path[common.len()..].trim_start_matches('/');
    Layers {
        lower: layers.lower.iter().map(strip).collect(),
        data_only: layers.data_only.iter().map(strip).collect(),
        upper: layers.upper,
        work: layers.work,
        other: layers.other.clone(),
    }
}

impl Layers<'_> {
    /// The options as `mount(2)` takes them.
    fn join(&self) -> String {
        let mut lower = self.lower.join(":");
        for path in &self.data_only {
            lower.push_str("::");
            lower.push_str(path);
        }
        let named = [("workdir", self.work), ("upperdir", self.upper), ("lowerdir", Some(lower.as_str()))];
        let named = named.iter().filter_map(|(name, path)| path.map(|path| format!("{name}={path}")));
        named.chain(self.other.iter().map(|other| (*other).to_owned())).collect::<Vec<_>>().join(",")
    }
}

/// Whether this kernel takes lower layers one at a time.
fn supports_appending() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| {
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .and_then(|context| fsconfig_set_string(context, "lowerdir+", "/"))
            .is_ok()
    })
}

/// Mounts through the new mount API, a layer at a time.
fn by_layer(source: &str, options: &Options, layers: &Layers<'_>, target: &OwnedFd) -> Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(io::Error::from);
    let context = context.context("open the overlay file system")?;
    let configure = || -> rustix::io::Result<OwnedFd> {
        if !source.is_empty() {
            fsconfig_set_string(&context, "source", source)?;
        }
        // Paths that come one at a time need no escapes, and overlay takes none here.
        for path in &layers.lower {
            fsconfig_set_string(&context, "lowerdir+", unescape(path))?;
        }
        for path in &layers.data_only {
            fsconfig_set_string(&context, "datadir+", unescape(path))?;
        }
        // These two are unescaped by overlay itself.
        for (name, path) in [("upperdir", layers.upper), ("workdir", layers.work)] {
            if let Some(path) = path {
                fsconfig_set_string(&context, name, path)?;
            }
        }
        for other in &layers.other {
            match other.split_once('=') {
                Some((name, value)) => fsconfig_set_string(&context, name, value)?,
                None => fsconfig_set_flag(&context, *other)?,
            }
        }
        for flag in options.superblock_flags() {
            fsconfig_set_flag(&context, flag)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes())
    };
    let mount = configure().map_err(|error| {
        let error = io::Error::from(error);
        match said(&context) {
            text if text.is_empty() => Error::io(error),
            text => Error::with_source(ErrorKind::from_io(&error), error).context(text),
        }
    })?;
    bind::attach(mount.as_fd(), target.as_fd())
}

/// What the kernel said about a configuration that failed.
fn said(context: &OwnedFd) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    // One message a read; a handful at most.
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 || said.len() == 8 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..length]);
        // Each begins with its severity, "e " for an error.
        said.push(text.trim().trim_start_matches(['e', 'w', 'i']).trim_start().to_owned());
    }
    said.join("; ")
}

#[cfg(test)]
mod tests;
