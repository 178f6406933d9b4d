//! Overlays without sync: which of them may be mounted again.
//!
//! A `volatile` overlay never syncs its upper directory, so after a crash of the machine its
//! contents cannot be trusted. The kernel leaves a mark, even after a clean unmount, and refuses to
//! mount such an upper directory again. But while the machine has not been started anew nothing was
//! lost. So the id of the boot is noted before the first mount, and the mark is removed before
//! another mount only if the id is still the same.
//!
//! ```text
//!   no mark ──(note this boot)──► mount ──► mark ──┬─ same boot: remove the mark ──► mount
//!                                                  └─ other boot: FailedPrecondition
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::boot::boot_id;

use crate::info;

/// Where the kernel leaves its mark, below the work directory.
///
/// Source: the kernel's filesystems/overlayfs, "Volatile mount".
const MARK: &str = "work/incompat/volatile";

/// Where we note the boot of the first volatile mount, below the work directory.
const NOTE: &str = "gantry-volatile-boot";

/// Makes way for a mount with this work directory, or says why there must be none. `asked` is
/// whether the mount will be volatile.
pub(crate) fn prepare(work: &Path, upper: &Path, asked: bool) -> Result<()> {
    let mark = work.join(MARK);
    let marked = match fs::symlink_metadata(&mark) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        // A missing or unreadable work directory is the kernel's to complain about.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
        Err(error) => return Err(Error::io(error).context(format!("look at {mark:?}"))),
    };
    if !marked {
        return if asked && work.is_dir() { note(work) } else { Ok(()) };
    }
    if noted(work)?.as_deref() != Some(boot_id()?) {
        return Err(Error::failed_precondition(format!(
            "snapshot {upper:?} was mounted volatile before the machine was last started, so its contents may be incomplete"
        )));
    }
    if in_use(work)? {
        return Err(Error::failed_precondition(format!("snapshot {upper:?} is mounted volatile already")));
    }
    fs::remove_dir_all(&mark).with_context(|| format!("remove {mark:?}"))
}

/// The boot that was noted.
fn noted(work: &Path) -> Result<Option<String>> {
    let path = work.join(NOTE);
    let mut text = String::new();
    match File::open(&path) {
        // Longer ones are not ours.
        Ok(file) => file.take(100).read_to_string(&mut text).with_context(|| format!("read {path:?}"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(error).context(format!("open {path:?}"))),
    };
    Ok(Some(text))
}

/// Notes this boot, durably: the note must not be older than the mark.
fn note(work: &Path) -> Result<()> {
    if noted(work)?.as_deref() == Some(boot_id()?) {
        return Ok(());
    }
    let path = work.join(NOTE);
    let write = || -> Result<()> {
        let mut aside = tempfile::NamedTempFile::new_in(work)?;
        aside.write_all(boot_id()?.as_bytes())?;
        aside.as_file().sync_all()?;
        aside.persist(&path).map_err(|error| Error::io(error.error))?;
        File::open(work)?.sync_all()?;
        Ok(())
    };
    write().with_context(|| format!("write {path:?}"))
}

/// Whether an overlay with this work directory is mounted in this mount namespace.
fn in_use(work: &Path) -> Result<bool> {
    let option = format!("workdir={}", work.display());
    for mount in info::mounts()? {
        let mount = mount?;
        if mount.kind == "overlay" && mount.super_options.split(',').any(|have| have == option) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::ErrorKind;

    #[test]
    fn only_a_mark_of_this_boot_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (work, upper) = (dir.path().join("work"), dir.path().join("fs"));
        let mark = work.join(MARK);
        let set_mark = || fs::create_dir_all(mark.join("dirty")).unwrap();
        fs::create_dir(&work).unwrap();

        prepare(&work, &upper, false).unwrap();
        assert!(!work.join(NOTE).exists());
        // A mark that we know nothing about.
        set_mark();
        let error = prepare(&work, &upper, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains(upper.to_str().unwrap()), "{error}");
        fs::remove_dir_all(work.join("work")).unwrap();

        prepare(&work, &upper, true).unwrap();
        set_mark();
        prepare(&work, &upper, true).unwrap();
        assert!(!mark.exists());
        set_mark();
        prepare(&work, &upper, false).unwrap();
        assert!(!mark.exists());

        // Another boot.
        fs::write(work.join(NOTE), "0").unwrap();
        set_mark();
        for asked in [true, false] {
            assert_eq!(prepare(&work, &upper, asked).unwrap_err().kind(), ErrorKind::FailedPrecondition);
        }
        assert!(mark.exists());
    }

    #[test]
    fn a_missing_work_directory_is_left_to_the_kernel() {
        prepare(Path::new("/no/such/work"), Path::new("/no/such/upper"), true).unwrap();
    }
}
