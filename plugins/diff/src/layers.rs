//! The directories behind a mount list.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use gantry_archive::OverlayXattrs;
use gantry_core::mount::Mount;

/// What a mount list shows, where that can be said without mounting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// One directory as it is.
    Directory {
        /// Its path.
        path: PathBuf,
        /// Whether it may be written to.
        writable: bool,
    },
    /// Layers laid over each other.
    Overlay {
        /// The one that is written to, if any.
        upper: Option<PathBuf>,
        /// The others, newest first.
        lowers: Vec<PathBuf>,
        /// Where its marks are.
        xattrs: OverlayXattrs,
    },
}

/// Options of an overlay that change nothing about what is in its directories.
const HARMLESS: [&str; 11] = [
    "rw",
    "ro",
    "index=off",
    "volatile",
    "userxattr",
    "nfs_export=off",
    "metacopy=off",
    "redirect_dir=off",
    "redirect_dir=nofollow",
    "xino=off",
    "xino=auto",
];

impl Layers {
    /// What `mounts` show; `None` if only mounting them tells.
    pub(crate) fn of(mounts: &[Mount]) -> Option<Layers> {
        let [mount] = mounts else { return None };
        if !matches!(mount.target.as_str(), "" | "/") {
            return None;
        }
        let bind = mount.options.iter().any(|option| option == "bind" || option == "rbind");
        match mount.kind.as_str() {
            "bind" | "" | "none" if bind => bound(mount),
            "overlay" => overlay(mount),
            _ => None,
        }
    }

    /// The directories from top to bottom.
    pub(crate) fn all(self) -> Vec<PathBuf> {
        match self {
            Layers::Directory { path, .. } => vec![path],
            Layers::Overlay { upper, lowers, .. } => upper.into_iter().chain(lowers).collect(),
        }
    }
}

fn bound(mount: &Mount) -> Option<Layers> {
    let known = |option: &String| matches!(option.as_str(), "bind" | "rbind" | "rw" | "ro");
    if !mount.options.iter().all(known) {
        return None;
    }
    let writable = !mount.options.iter().any(|option| option == "ro");
    Some(Layers::Directory { path: PathBuf::from(&mount.source), writable })
}

fn overlay(mount: &Mount) -> Option<Layers> {
    let (mut upper, mut lowers, mut xattrs) = (None, Vec::new(), OverlayXattrs::Trusted);
    for option in &mount.options {
        if let Some(path) = option.strip_prefix("upperdir=") {
            upper = Some(unescaped(path));
        } else if let Some(list) = option.strip_prefix("lowerdir=") {
            lowers = split(list)?;
        } else if option == "userxattr" {
            xattrs = OverlayXattrs::User;
        } else if !option.starts_with("workdir=") && !HARMLESS.contains(&option.as_str()) {
            return None;
        }
    }
    if mount.options.iter().any(|option| option == "ro") {
        lowers.splice(0..0, upper.take());
    }
    (!lowers.is_empty()).then_some(Layers::Overlay { upper, lowers, xattrs })
}

/// Splits a list at its colons, where no backslash stands before them. Layers that hold data only are not for us.
/// Source: the kernel's `Documentation/filesystems/overlayfs.rst`, "Multiple lower layers".
fn split(list: &str) -> Option<Vec<PathBuf>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = list.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => parts.push(Vec::new()),
            _ => {
                let byte = if byte == b'\\' { bytes.next()? } else { byte };
                parts.last_mut().expect("it begins with one").push(byte);
            }
        }
    }
    // An empty part is what stands between two colons: data-only layers follow.
    let whole = parts.iter().all(|part| !part.is_empty());
    whole.then(|| parts.into_iter().map(|part| PathBuf::from(OsString::from_vec(part))).collect())
}

fn unescaped(path: &str) -> PathBuf {
    let mut bytes = path.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().unwrap_or(b'\\') } else { byte });
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Vec<Mount> {
        let options = options.iter().map(ToString::to_string).collect();
        vec![Mount { kind: kind.into(), source: "/s".into(), target: String::new(), options }]
    }

    #[test]
    fn binds_and_overlays_are_understood() {
        let directory = |writable| Some(Layers::Directory { path: "/s".into(), writable });
        assert_eq!(Layers::of(&mount("bind", &["rbind", "rw"])), directory(true));
        assert_eq!(Layers::of(&mount("bind", &["ro", "rbind"])), directory(false));
        let overlay = |upper: Option<&str>, lowers: &[&str], xattrs| {
            let lowers = lowers.iter().map(PathBuf::from).collect();
            Some(Layers::Overlay { upper: upper.map(PathBuf::from), lowers, xattrs })
        };
        assert_eq!(
            Layers::of(&mount(
                "overlay",
                &["workdir=/w", "upperdir=/u\\:x", "lowerdir=/a\\:b:/c", "index=off"]
            )),
            overlay(Some("/u:x"), &["/a:b", "/c"], OverlayXattrs::Trusted)
        );
        assert_eq!(
            Layers::of(&mount("overlay", &["userxattr", "lowerdir=/a:/b"])),
            overlay(None, &["/a", "/b"], OverlayXattrs::User)
        );
    }

    #[test]
    fn what_only_a_mount_can_tell_is_left_to_it() {
        for (kind, options) in [
            ("overlay", &["upperdir=/u", "workdir=/w", "lowerdir=/a", "redirect_dir=on"][..]),
            ("overlay", &["upperdir=/u", "workdir=/w", "lowerdir=/a::/data"]),
            ("overlay", &["upperdir=/u", "workdir=/w", "lowerdir=/a", "uidmap=0:1:1"]),
            ("bind", &["rbind", "rw", "uidmap=0:1:1"]),
            ("ext4", &["rw"]),
            ("erofs", &[]),
        ] {
            assert_eq!(Layers::of(&mount(kind, options)), None, "{kind} {options:?}");
        }
        assert_eq!(Layers::of(&[]), None);
        assert_eq!(Layers::of(&[mount("bind", &["bind"]), mount("bind", &["bind"])].concat()), None);
    }
}
