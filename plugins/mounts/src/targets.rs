//! The directories that activations are mounted in, by number of the record.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_core::mounts::MountHandler;
use gantry_core::{Error, Result, ResultExt};
use gantry_mount::Busy;

/// The handlers, by type.
pub(crate) type Handlers = BTreeMap<String, Arc<dyn MountHandler>>;

/// Behind the number of a mount: the file that names its type.
const TYPE_SUFFIX: &str = "-type";

/// Where everything is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Targets(pub(crate) PathBuf);

impl Targets {
    /// Opens `dir`, which is made if it is missing; nobody but this user may enter it.
    pub(crate) fn open(dir: PathBuf) -> Result<Targets> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("make {}", dir.display()))?;
        Ok(Targets(dir))
    }

    pub(crate) fn dir(&self, id: u64) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// Makes the directory of a record.
    ///
    /// # Errors
    /// `AlreadyExists` if a record of another database had this number.
    pub(crate) fn create(&self, id: u64) -> Result<PathBuf> {
        let dir = self.dir(id);
        fs::DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// All numbers for which there is a directory.
    pub(crate) fn ids(&self) -> Result<Vec<u64>> {
        let list = || format!("list {}", self.0.display());
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.0).with_context(list)? {
            let name = entry.with_context(list)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(ids)
    }

    /// Unmounts what is in the directory of a record, last mount first, and removes it. What is not there is done. Stops at the
    /// first that stays, since those before it lie below it.
    pub(crate) fn tear_down(&self, id: u64, handlers: &Handlers) -> Result<()> {
        let dir = self.dir(id);
        let places = match places(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            places => places.with_context(|| format!("list {}", dir.display()))?,
        };
        // The lowest number is the last mount.
        for number in places {
            let point = dir.join(&number);
            let kind_file = dir.join(format!("{number}{TYPE_SUFFIX}"));
            let kind = match fs::read_to_string(&kind_file) {
                Ok(kind) => kind,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(Error::io(error).context(format!("read {}", kind_file.display()))),
            };
            match handlers.get(&kind) {
                Some(handler) => handler.unmount(&point)?,
                None => gantry_mount::unmount_recursive(&point, Busy::Wait)?,
            }
            remove_empty(&point)?;
            remove(fs::remove_file(&kind_file), &kind_file)?;
        }
        remove(fs::remove_dir(&dir), &dir)
    }
}

/// The numbers of the mounts in a directory, lowest first, as they are spelt.
fn places(dir: &Path) -> io::Result<Vec<String>> {
    let mut numbers = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.strip_suffix(TYPE_SUFFIX).unwrap_or(&name);
        if let Ok(order) = number.parse::<u32>() {
            numbers.insert(order, number.to_owned());
        }
    }
    Ok(numbers.into_values().collect())
}

/// Removes what a mount lay on, never what is in it: if something is still mounted there, that is somebody's data.
fn remove_empty(point: &Path) -> Result<()> {
    let is_dir = point.symlink_metadata().is_ok_and(|found| found.is_dir());
    remove(if is_dir { fs::remove_dir(point) } else { fs::remove_file(point) }, point)
}

fn remove(removed: io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(error).context(format!("remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// The name of the `index`th of `count` mounts: counted down, so that the last is 1, and as wide as the first's.
///
/// Source: containerd, which sorts these names to find the order.
pub(crate) fn place_name(index: usize, count: usize) -> String {
    let width = match count {
        101.. => 3,
        11.. => 2,
        _ => 1,
    };
    format!("{:0width$}", count - index)
}

/// The file that names the type of what is mounted at `point`.
pub(crate) fn type_file(point: &Path) -> PathBuf {
    let mut name = point.file_name().unwrap_or_default().to_owned();
    name.push(TYPE_SUFFIX);
    point.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_their_numbers() {
        assert_eq!([place_name(0, 1), place_name(0, 10), place_name(9, 10)], ["1", "10", "1"]);
        assert_eq!([place_name(0, 11), place_name(10, 11)], ["11", "01"]);
        assert_eq!([place_name(0, 200), place_name(199, 200)], ["200", "001"]);
    }

    #[test]
    fn a_file_in_the_way_is_never_deleted_with_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        let targets = Targets::open(dir.path().join("t")).unwrap();
        let made = targets.create(7).unwrap();
        fs::create_dir_all(made.join("1/data")).unwrap();
        fs::write(made.join("1-type"), "ext4").unwrap();
        assert_eq!(targets.ids().unwrap(), [7]);
        assert!(targets.tear_down(7, &Handlers::new()).is_err());
        assert!(made.join("1/data").exists());
        fs::remove_dir(made.join("1/data")).unwrap();
        targets.tear_down(7, &Handlers::new()).unwrap();
        targets.tear_down(7, &Handlers::new()).unwrap();
        assert!(targets.ids().unwrap().is_empty());
    }
}
