//! Where a shim listens.
//!
//! The path follows from the daemon's address, the namespace and the shim's id, so that a second `start` for the same
//! pod finds the shim that the first one made.

use std::fmt::Write as _;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use sha2::{Digest, Sha256};

/// The directory of shim sockets, in order: the one asked for; the system's; a user's own.
///
/// Source: features I09.
pub fn socket_dir(asked: Option<&str>) -> PathBuf {
    if let Some(dir) = asked.filter(|dir| !dir.is_empty()) {
        return dir.into();
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/containerd/s".into();
    }
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return Path::new(&runtime).join("containerd/s");
    }
    let own = PathBuf::from(format!("/run/{}", uid.as_raw()));
    if own.is_dir() {
        return own.join("containerd/s");
    }
    format!("/tmp/containerd-s-{}", uid.as_raw()).into()
}

/// The socket of the shim `id` (or of its group) in `namespace` of the daemon at `daemon`.
///
/// Source: features I09: the SHA-256 of the three joined as a path.
pub fn socket_path(dir: &Path, daemon: &str, namespace: &str, id: &str) -> PathBuf {
    let mut name = String::with_capacity(64);
    for byte in Sha256::digest(joined(&[daemon, namespace, id])) {
        write!(name, "{byte:02x}").expect("writing to a string cannot fail");
    }
    dir.join(name)
}

/// Joins parts with slashes and drops what a path would not need, as Go's `filepath.Join` does.
fn joined(parts: &[&str]) -> String {
    let whole = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    let mut kept: Vec<&str> = Vec::new();
    let rooted = whole.starts_with('/');
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    let path = kept.join("/");
    if rooted { format!("/{path}") } else { path }
}

/// Makes the directory of sockets, closed to everybody else.
///
/// # Errors
/// `PermissionDenied` if it belongs to another user; otherwise what the kernel said.
pub fn make_socket_dir(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("make {dir:?}"))?;
    let found = std::fs::symlink_metadata(dir).with_context(|| format!("look at {dir:?}"))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::new(
            gantry_core::ErrorKind::PermissionDenied,
            format!("socket directory {dir:?}"),
        ));
    }
    // An older shim may have made it for others to walk through. Source: security S02.
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))
            .with_context(|| format!("close {dir:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_named_by_the_digest_of_address_namespace_and_id() {
        // Source: computed by `printf /run/containerd/containerd.sock/default/web | sha256sum`.
        let path =
            socket_path(Path::new("/run/containerd/s"), "/run/containerd/containerd.sock", "default", "web");
        assert_eq!(
            path.to_str().unwrap(),
            "/run/containerd/s/2cde4450fa38c74f53603e01d2afd903b315a27a596f12a151414cd59897d883"
        );
    }

    #[test]
    fn joining_cleans_like_go() {
        assert_eq!(joined(&["/run//c/../d.sock", "ns", "id"]), "/run/d.sock/ns/id");
        assert_eq!(joined(&["", "ns", "id"]), "ns/id");
        assert_eq!(joined(&["/..", "a"]), "/a");
    }

    #[test]
    fn s02_an_open_directory_of_sockets_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        make_socket_dir(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(make_socket_dir(&dir.path().join("link")).is_err());
    }
}
