//! The directories in which files and directories may be made for a mount.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// How often a lookup is repeated that a concurrent rename disturbed.
const MAX_TRIES: usize = 64;

/// The trusted directories. What lies below them is not: no symlink there leads out.
#[derive(Clone, Debug)]
pub(crate) struct Roots(pub(crate) Vec<PathBuf>);

/// A place below one of the roots.
#[derive(Debug)]
pub(crate) struct Place {
    root: OwnedFd,
    /// Below the root, without `..`.
    below: PathBuf,
}

impl Roots {
    /// Finds the root of `path`, which `step` wants to make.
    ///
    /// # Errors
    /// `Unimplemented` if it is in none, as in containerd; `InvalidArgument` for a path with `..`.
    pub(crate) fn place(&self, path: &str, step: &str) -> Result<Place> {
        let given = Path::new(path);
        let found = self.0.iter().find_map(|root| Some((root, given.strip_prefix(root).ok()?)));
        let Some((root, below)) = found else {
            return Err(Error::unimplemented(format!("no root configured for {step} of {path:?}")));
        };
        if below.as_os_str().is_empty()
            || below.components().any(|part| !matches!(part, Component::Normal(_)))
        {
            return Err(Error::invalid_argument(format!("path {path:?} for {step}")));
        }
        let root =
            rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(io::Error::from)
                .with_context(|| format!("open {}", root.display()))?;
        Ok(Place { root, below: below.to_owned() })
    }
}

impl Place {
    fn look(&self, below: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MAX_TRIES {
            match openat2(&self.root, below, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// What is there already, opened with `flags`.
    pub(crate) fn existing(&self, flags: OFlags) -> Result<Option<OwnedFd>> {
        match self.look(&self.below, flags) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(error).context(format!("open {}", self.below.display()))),
        }
    }

    /// The directory that is to hold it, and its name there.
    pub(crate) fn parent(&self) -> Result<(OwnedFd, &Path)> {
        let name = self.below.file_name().map(Path::new);
        let name = name.ok_or_else(|| Error::internal("a place without a name"))?;
        let dir = match self.below.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = self.look(dir, flags).with_context(|| format!("open {}", dir.display()))?;
        Ok((found, name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn nothing_leads_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::create_dir(dir.path().join("rootless")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("../..", root.join("relative")).unwrap();
        symlink("in", root.join("inside")).unwrap();
        let roots = Roots(vec![root.clone()]);
        let place = |path: &str| roots.place(&format!("{}/{path}", dir.path().display()), "mkdir");
        assert!(place("root/inside/new").unwrap().parent().is_ok());
        assert!(place("root/in").unwrap().existing(OFlags::PATH).unwrap().is_some());
        assert!(place("root/in/no").unwrap().existing(OFlags::PATH).unwrap().is_none());
        for out in ["root/absolute/new", "root/relative/new"] {
            assert!(place(out).unwrap().parent().is_err(), "{out}");
        }
        for path in ["root/../x", "root/in/../../x", "root", "root/"] {
            assert_eq!(place(path).unwrap_err().kind(), ErrorKind::InvalidArgument, "{path}");
        }
        for path in ["rootless/x", "x"] {
            assert_eq!(place(path).unwrap_err().kind(), ErrorKind::Unimplemented, "{path}");
        }
    }
}
