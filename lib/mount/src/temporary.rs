//! Mounts for a moment.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use gantry_core::{Error, Result, ResultExt};

use crate::options::Options;
use crate::unmount::Busy;
use crate::{Mount, info, mount_all, unmount_all, unmount_list};

/// Mounts `mounts` on a new directory in `dir`, gives it to `work`, and unmounts it again. `dir` is
/// made if it is missing, and nobody but this user may enter it.
///
/// # Errors
/// Those of mounting; what `work` returns; if that is no error, those of unmounting.
pub fn with_temp_mount<T>(dir: &Path, mounts: &[Mount], work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("make {dir:?}"))?;
    let place = tempfile::Builder::new().prefix("mount").tempdir_in(dir);
    // Kept: deleting whatever is inside would delete a snapshot if unmounting failed.
    let place = place.with_context(|| format!("make a directory in {dir:?}"))?.keep();
    let mounted = Mounted { mounts, place: &place };
    let result = mount_all(mounts, &place).and_then(|()| work(&place));
    let undone = mounted.undo();
    std::mem::forget(mounted);
    match (result, undone) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), undone) => {
            if let Err(undone) = undone {
                tracing::warn!(path = %place.display(), error = %undone, "removing a temporary mount failed");
            }
            Err(error)
        }
    }
}

/// Undoes a temporary mount even if the work panics.
struct Mounted<'a> {
    mounts: &'a [Mount],
    place: &'a Path,
}

impl Mounted<'_> {
    fn undo(&self) -> Result<()> {
        unmount_list(self.mounts, self.place, Busy::Detach)?;
        unmount_all(self.place, Busy::Detach)?;
        fs::remove_dir(self.place).with_context(|| format!("remove {:?}", self.place))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            tracing::warn!(path = %self.place.display(), %error, "removing a temporary mount failed");
        }
    }
}

/// Removes what a killed process left mounted in `dir`, and the empty directories it was mounted on.
///
/// # Errors
/// The first failure; nothing but empty directories is ever deleted.
pub fn clear_temp_mounts(dir: &Path) -> Result<()> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(error).context(format!("find {dir:?}"))),
    };
    let mut points = info::mounts_below(&dir)?;
    points.reverse();
    let mut first = Ok(());
    for point in points.into_iter().filter(|point| point.mount_point != dir) {
        let undone = unmount_all(&point.mount_point, Busy::Detach);
        first = first.and(undone);
    }
    for entry in fs::read_dir(&dir).with_context(|| format!("list {dir:?}"))? {
        let entry = entry.with_context(|| format!("list {dir:?}"))?;
        // Whatever is not an empty directory stays.
        drop(fs::remove_dir(entry.path()));
    }
    first
}

/// The same mounts for looking only: read-only, and an overlay without its upper directory, which
/// becomes the topmost lower one. Such a mount needs no sync when it ends.
///
/// # Errors
/// As [`Options::parse`].
pub fn read_only(mounts: &[Mount]) -> Result<Vec<Mount>> {
    mounts.iter().map(read_only_entry).collect()
}

fn read_only_entry(entry: &Mount) -> Result<Mount> {
    Options::parse(&entry.options)?;
    let mut entry = entry.clone();
    if entry.kind == "overlay" {
        let upper = entry.options.iter().find_map(|option| option.strip_prefix("upperdir="));
        if let Some(upper) = upper.map(str::to_owned) {
            // In a list a colon separates; alone it does not have to be escaped.
            let upper = escape_colons(&upper);
            for option in &mut entry.options {
                if let Some(lower) = option.strip_prefix("lowerdir=") {
                    *option = format!("lowerdir={upper}:{lower}");
                }
            }
        }
        let writing = ["upperdir=", "workdir="];
        entry.options.retain(|option| {
            option != "volatile" && !writing.iter().any(|prefix| option.starts_with(prefix))
        });
    }
    entry.options.retain(|option| option != "rw" && option != "ro");
    entry.options.push("ro".to_owned());
    Ok(entry)
}

fn escape_colons(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                escaped.push('\\');
                escaped.extend(chars.next());
            }
            ':' => escaped.push_str("\\:"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Busy;
    use gantry_core::ErrorKind;

    fn overlay(options: &[&str]) -> Mount {
        Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_read_only_overlay_has_its_upper_directory_on_top() {
        let mounts =
            [overlay(&["workdir=/w", "upperdir=/u:x\\:y", "lowerdir=/b:/a", "index=off", "volatile", "rw"])];
        let looked = read_only(&mounts).unwrap();
        assert_eq!(looked[0].options, ["lowerdir=/u\\:x\\:y:/b:/a", "index=off", "ro"]);
    }

    #[test]
    fn a_temporary_mount_is_gone_afterwards_even_if_the_work_fails() {
        gantry_testkit::root!();
        let dir = tempfile::tempdir().unwrap();
        let (source, place) = (dir.path().join("source"), dir.path().join("mounts"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "x").unwrap();
        let bind = Mount {
            kind: "bind".into(),
            source: source.to_str().unwrap().into(),
            options: vec!["rbind".into(), "ro".into()],
            ..Mount::default()
        };
        let list = [bind];
        let text = with_temp_mount(&place, &list, |at| Ok(fs::read_to_string(at.join("file"))?)).unwrap();
        assert_eq!(text, "x");
        let error = with_temp_mount(&place, &list, |at| {
            fs::write(at.join("file"), "y").unwrap_err();
            Err::<(), _>(Error::not_found("expected"))
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
        let panicked =
            std::panic::catch_unwind(|| with_temp_mount::<()>(&place, &list, |_| panic!("expected")));
        assert!(panicked.is_err());
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "x");

        // What a killed process would leave.
        let left = place.join("left");
        fs::create_dir(&left).unwrap();
        mount_all(&list, &left).unwrap();
        mount_all(&list, &left).unwrap();
        fs::create_dir(place.join("full")).unwrap();
        fs::write(place.join("full/file"), "").unwrap();
        clear_temp_mounts(&place).unwrap();
        assert!(!left.exists() && place.join("full/file").exists());
        assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "x");
        unmount_all(&place, Busy::Wait).unwrap();
    }
}
