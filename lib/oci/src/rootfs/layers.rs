//! Finding a file in the layers of an overlay, as the kernel would, without mounting them.
//!
//! Source: the kernel's `Documentation/filesystems/overlayfs.rst`. What it merges by following links or redirects
//! across layers is not imitated: then only mounting can tell.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use gantry_core::mount::Mount;
use gantry_core::{Error, Result};
use rustix::fs::{FileType, OFlags, ResolveFlags, fgetxattr, fstat};
use rustix::io::Errno;

/// The prefixes of overlay's own attributes: the kernel's, and those of mounts in user namespaces.
const PREFIXES: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// The directories that `mount` shows, the uppermost first; `None` if it shows anything else.
pub(super) fn directories(mount: &Mount) -> Option<Vec<PathBuf>> {
    if !mount.target.trim_matches('/').is_empty() {
        return None;
    }
    if mount.kind == "bind" || mount.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
    {
        return Some(vec![PathBuf::from(&mount.source)]);
    }
    if mount.kind != "overlay" {
        return None;
    }
    let value = |key: &str| mount.options.iter().find_map(|option| option.strip_prefix(key));
    let mut directories = Vec::new();
    directories.extend(value("upperdir=").map(unescaped));
    directories.extend(split_lower(value("lowerdir=")?)?);
    // Relative ones count from a directory that only the mounting process has.
    directories.iter().all(|path| path.is_absolute()).then_some(directories)
}

fn unescaped(text: &str) -> PathBuf {
    let mut path = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        path.push(if c == '\\' { characters.next().unwrap_or(c) } else { c });
    }
    PathBuf::from(path)
}

/// Directories separated by colons; `None` for the doubled colons of layers that hold data only.
fn split_lower(text: &str) -> Option<Vec<PathBuf>> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let current = parts.last_mut()?;
        match c {
            '\\' => {
                current.push(c);
                current.extend(characters.next());
            }
            ':' => parts.push(String::new()),
            c => current.push(c),
        }
    }
    parts.iter().all(|part| !part.is_empty()).then(|| parts.iter().map(|part| unescaped(part)).collect())
}

/// What one layer has under a name.
enum Entry {
    Nothing,
    /// It hides what lower layers have.
    Whiteout,
    Directory(OwnedFd),
    Link,
    Other,
}

fn look(directory: &OwnedFd, name: &str) -> Result<Entry> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let found = match super::open_at(directory.as_fd(), name, flags, resolve) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Entry::Nothing),
        Err(errno) => return Err(failed(name, errno)),
    };
    let stat = fstat(&found).map_err(|errno| failed(name, errno))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice if stat.st_rdev == 0 => Entry::Whiteout,
        FileType::Directory => {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
            let open = super::open_at(directory.as_fd(), name, flags, resolve)
                .map_err(|errno| failed(name, errno))?;
            Entry::Directory(open)
        }
        FileType::Symlink => Entry::Link,
        _ => Entry::Other,
    })
}

fn failed(name: &str, errno: Errno) -> Error {
    Error::io(errno.into()).context(format!("open {name} of the image"))
}

fn only_mounting_can_tell(path: &str) -> Error {
    Error::unimplemented(format!("reading {path} of the image without mounting it"))
}

/// The directory that holds `path` in the layer that counts, and its name there; `None` if it does not exist.
pub(super) fn find(layers: &[OwnedFd], path: &str) -> Result<Option<(OwnedFd, String)>> {
    let mut components: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let Some(name) = components.pop() else { return Ok(None) };
    if name == ".." || components.contains(&"..") {
        return Err(only_mounting_can_tell(path));
    }
    let mut merged = Vec::with_capacity(layers.len());
    for layer in layers {
        merged.push(layer.try_clone().map_err(|error| Error::io(error).context("root file system"))?);
    }
    for component in components {
        merged = merge(&merged, component, path)?;
    }
    for directory in merged {
        match look(&directory, name)? {
            Entry::Nothing => {}
            Entry::Whiteout => return Ok(None),
            Entry::Link => return Err(only_mounting_can_tell(path)),
            Entry::Directory(_) | Entry::Other => return Ok(Some((directory, name.to_owned()))),
        }
    }
    Ok(None)
}

/// The directories that are merged under `name`.
fn merge(directories: &[OwnedFd], name: &str, path: &str) -> Result<Vec<OwnedFd>> {
    let mut merged = Vec::new();
    for directory in directories {
        match look(directory, name)? {
            Entry::Nothing => {}
            Entry::Link if merged.is_empty() => return Err(only_mounting_can_tell(path)),
            // What is not a directory hides, and is hidden by, directories.
            Entry::Whiteout | Entry::Link | Entry::Other => break,
            Entry::Directory(found) => {
                if attribute(&found, "redirect")?.is_some() {
                    return Err(only_mounting_can_tell(path));
                }
                let opaque = attribute(&found, "opaque")?.is_some_and(|value| value == b"y");
                merged.push(found);
                if opaque {
                    break;
                }
            }
        }
    }
    Ok(merged)
}

/// Overlay's own attribute `name` of a file.
fn attribute(file: &impl std::os::fd::AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    for prefix in PREFIXES {
        let mut value = [0u8; 256];
        match fgetxattr(file, format!("{prefix}{name}"), &mut value) {
            Ok(length) => return Ok(Some(value[..length].to_vec())),
            // Longer than anything but a redirect's target, whose content does not matter.
            Err(Errno::RANGE) => return Ok(Some(Vec::new())),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(Error::io(errno.into()).context("attributes of the image")),
        }
    }
    Ok(None)
}

/// Refuses a file of which a layer has only the attributes, and another the bytes.
pub(super) fn check_whole(file: File, path: &str) -> Result<File> {
    if attribute(&file, "metacopy")?.is_some() || attribute(&file, "redirect")?.is_some() {
        return Err(only_mounting_can_tell(path));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::path::Path;

    use gantry_core::ErrorKind;
    use tempfile::TempDir;

    use super::super::Rootfs;
    use super::*;

    fn overlay(layers: &[&str]) -> (TempDir, Mount) {
        let dir = tempfile::tempdir().unwrap();
        for layer in layers {
            fs::create_dir_all(dir.path().join(layer).join("etc")).unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let lower: Vec<String> = layers[1..].iter().map(|name| at(name)).collect();
        let options = vec![
            "index=off".into(),
            format!("upperdir={}", at(layers[0])),
            format!("lowerdir={}", lower.join(":")),
        ];
        (dir, Mount { kind: "overlay".into(), source: "overlay".into(), options, ..Mount::default() })
    }

    fn read(mount: &Mount) -> Result<Option<String>> {
        let rootfs = Rootfs::from_mounts(std::slice::from_ref(mount))?.expect("an overlay can be read");
        Ok(rootfs.open_file("etc/passwd")?.map(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        }))
    }

    fn set_opaque(path: &Path) -> bool {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path, "user.overlay.opaque", b"y", flags).is_ok()
    }

    #[test]
    fn the_uppermost_layer_that_has_a_file_counts() {
        let (dir, mount) = overlay(&["up", "mid", "low"]);
        assert_eq!(read(&mount).unwrap(), None);
        for layer in ["low", "mid", "up"] {
            fs::write(dir.path().join(layer).join("etc/passwd"), layer).unwrap();
            assert_eq!(read(&mount).unwrap().as_deref(), Some(layer));
        }
    }

    #[test]
    fn an_opaque_directory_hides_lower_ones() {
        let (dir, mount) = overlay(&["up", "low"]);
        fs::write(dir.path().join("low/etc/passwd"), "low").unwrap();
        if !set_opaque(&dir.path().join("up/etc")) {
            eprintln!("skipped: this file system has no extended attributes of users");
            return;
        }
        assert_eq!(read(&mount).unwrap(), None);
    }

    #[test]
    fn a_whiteout_hides_lower_files_and_directories() {
        for whiteout in ["up/etc/passwd", "up/etc"] {
            let (dir, mount) = overlay(&["up", "low"]);
            fs::write(dir.path().join("low/etc/passwd"), "low").unwrap();
            let path = dir.path().join(whiteout);
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            }
            let mode = rustix::fs::Mode::empty();
            if rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, mode, 0).is_err() {
                eprintln!("skipped: making whiteouts needs a right that is not here");
                return;
            }
            assert_eq!(read(&mount).unwrap(), None, "{whiteout}");
        }
    }

    #[test]
    fn a_link_cannot_be_followed_without_mounting_and_leads_nowhere_else() {
        for link in ["up/etc/passwd", "up/etc"] {
            let (dir, mount) = overlay(&["up", "low"]);
            let path = dir.path().join(link);
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            }
            std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
            assert_eq!(read(&mount).unwrap_err().kind(), ErrorKind::Unimplemented, "{link}");
        }
    }

    #[test]
    fn other_mounts_are_left_to_the_kernel() {
        let mount = |kind: &str, options: &[&str], target: &str| Mount {
            kind: kind.into(),
            source: "/".into(),
            target: target.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        for other in [
            mount("ext4", &[], ""),
            mount("overlay", &["lowerdir=a:b"], ""),
            mount("overlay", &["lowerdir=/a::/b"], ""),
            mount("overlay", &["upperdir=/a"], ""),
            mount("bind", &["rbind"], "below"),
        ] {
            assert!(Rootfs::from_mounts(std::slice::from_ref(&other)).unwrap().is_none(), "{other:?}");
        }
        let bind = mount("bind", &["rbind", "ro"], "");
        assert!(Rootfs::from_mounts(std::slice::from_ref(&bind)).unwrap().is_some());
        assert!(Rootfs::from_mounts(&[bind.clone(), bind]).unwrap().is_none());
        let escaped = mount("overlay", &["lowerdir=/a\\:b:/c\\\\d"], "");
        assert_eq!(directories(&escaped).unwrap(), [PathBuf::from("/a:b"), PathBuf::from("/c\\d")]);
    }
}
