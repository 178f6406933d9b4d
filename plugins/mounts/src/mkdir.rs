//! `mkdir/..`: directories that are made before a mount that needs them, such as an overlay's upper one.

use std::io;

use gantry_core::mount::Mount;
use gantry_core::{Error, Result, ResultExt};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat};

use crate::roots::Roots;

/// Source: containerd's documentation of mounts.
const PREFIX: &str = "X-containerd.mkdir.";
const DEFAULT_MODE: u32 = 0o700;

/// Makes the directories that options ask for, and gives the entry without them.
pub(crate) fn mkdir(mut entry: Mount, roots: &Roots) -> Result<Mount> {
    let mut left = Vec::with_capacity(entry.options.len());
    for option in std::mem::take(&mut entry.options) {
        match option.strip_prefix(PREFIX) {
            Some(wanted) => {
                let wanted = Wanted::parse(wanted).with_context(|| format!("mount option {option:?}"))?;
                wanted.make(roots).with_context(|| format!("make directory {:?}", wanted.path))?;
            }
            None => left.push(option),
        }
    }
    entry.options = left;
    Ok(entry)
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    path: &'a str,
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl<'a> Wanted<'a> {
    /// Reads `path=<dir>[:<mode>[:<uid>:<gid>]]`.
    fn parse(text: &'a str) -> Result<Wanted<'a>> {
        let invalid = |what: &str| Error::invalid_argument(format!("{what} of a directory to be made"));
        let value = text.strip_prefix("path=").ok_or_else(|| invalid("no path"))?;
        let parts: Vec<&str> = value.splitn(4, ':').collect();
        let mut wanted = Wanted { path: parts[0], mode: DEFAULT_MODE, owner: None };
        if parts.len() == 3 {
            return Err(invalid("a user without a group"));
        }
        if let Some(mode) = parts.get(1) {
            let parsed = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
            wanted.mode = parsed.ok_or_else(|| invalid("no valid mode"))?;
        }
        if let [_, _, user, group] = parts.as_slice() {
            let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
            let owner = id(user).zip(id(group));
            wanted.owner = Some(owner.ok_or_else(|| invalid("no valid user or group"))?);
        }
        Ok(wanted)
    }

    fn make(&self, roots: &Roots) -> Result<()> {
        let place = roots.place(self.path, "mkdir")?;
        if let Some(existing) = place.existing(OFlags::PATH | OFlags::DIRECTORY)? {
            let mode = fstat(&existing).map_err(io::Error::from)?.st_mode & 0o777;
            if mode == self.mode {
                return Ok(());
            }
            // Source: containerd does not change what is there either.
            return Err(Error::unimplemented(format!("it is there with mode {mode:o}, not {:o}", self.mode)));
        }
        let (parent, name) = place.parent()?;
        let private = Mode::from_raw_mode(0o700);
        mkdirat(&parent, name, private).map_err(io::Error::from)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let made = openat(&parent, name, flags, Mode::empty()).map_err(io::Error::from)?;
        if let Some((user, group)) = self.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            fchown(&made, Some(user), Some(group)).map_err(io::Error::from).context("set its owner")?;
        }
        // Whatever the process's mask is: the next activation compares.
        fchmod(&made, Mode::from_raw_mode(self.mode)).map_err(io::Error::from).context("set its mode")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use gantry_core::ErrorKind;

    use super::*;

    fn with(options: &[String]) -> Mount {
        Mount { kind: "overlay".into(), options: options.to_vec(), ..Mount::default() }
    }

    #[test]
    fn a_directory_is_made_once_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let roots = Roots(vec![dir.path().to_owned()]);
        let options =
            [format!("{PREFIX}path={root}/a"), "ro".to_owned(), format!("{PREFIX}path={root}/a/b:0775")];
        for _ in 0..2 {
            assert_eq!(mkdir(with(&options), &roots).unwrap().options, ["ro"]);
        }
        assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(dir.path().join("a/b")).unwrap().mode() & 0o777, 0o775);
        let other = mkdir(with(&[format!("{PREFIX}path={root}/a:755")]), &roots).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Unimplemented);
        let elsewhere = mkdir(with(&[format!("{PREFIX}path=/nowhere/a")]), &roots).unwrap_err();
        assert_eq!(elsewhere.kind(), ErrorKind::Unimplemented);
        let missing = mkdir(with(&[format!("{PREFIX}path={root}/x/y")]), &roots).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn options_have_a_form() {
        let wanted = Wanted::parse("path=/a:750:1:2").unwrap();
        assert_eq!(wanted, Wanted { path: "/a", mode: 0o750, owner: Some((1, 2)) });
        for bad in
            ["", "/a", "path=/a:9", "path=/a:1777", "path=/a:755:1", "path=/a:755:x:1", "path=/a:755:1:-1"]
        {
            assert_eq!(Wanted::parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
