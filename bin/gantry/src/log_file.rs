//! The files that the output of containers in the background goes to.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gantry_client::Client;
use gantry_core::log_limits::{LogLimits, MAX_FILES, rotated};
use gantry_core::wire_names::{LABEL_LOG_MAX_FILES, LABEL_LOG_MAX_SIZE};
use gantry_core::{Error, Labels, Result, ResultExt as _};

/// Where log files are, unless told otherwise.
const DIR: &str = "/var/lib/gantry/logs";
/// The label that says where a container's log file is.
const LABEL: &str = "gantry.io/log-path";

/// Where the output of container `id` goes by default. Each daemon has a directory of its own: two may have containers
/// of the same name.
///
/// # Errors
/// Those of asking the daemon who it is.
pub(crate) async fn default_path(client: &Client, id: &str) -> Result<PathBuf> {
    let server = client.services().introspection.server(&client.context()).await;
    let uuid = server.context("ask the daemon who it is")?.uuid;
    // It comes from the daemon, and becomes a part of a path.
    if uuid.is_empty() || uuid.contains('/') || uuid.starts_with('.') {
        return Err(Error::unknown(format!("the daemon's id is {uuid:?}, which can be no directory")));
    }
    Ok(Path::new(DIR).join(uuid).join(client.namespace().as_str()).join(id).join("output.log"))
}

/// Notes `path` among the labels of a container.
///
/// # Errors
/// `InvalidArgument` for a path that is no text.
pub(crate) fn note(labels: &mut Labels, path: &Path) -> Result<()> {
    let text =
        path.to_str().ok_or_else(|| Error::invalid_argument(format!("log file {path:?}: no UTF-8")))?;
    labels.insert(LABEL.to_owned(), text.to_owned());
    Ok(())
}

/// Asks the daemon, by labels of a container, to have its log rotated, if one of the two is there.
///
/// # Errors
/// `InvalidArgument` for limits that cannot be.
pub(crate) fn limit(labels: &mut Labels, max_size_bytes: Option<i64>, max_files: Option<u32>) -> Result<()> {
    let limits = [
        (LABEL_LOG_MAX_SIZE, max_size_bytes.map(|size| size.to_string())),
        (LABEL_LOG_MAX_FILES, max_files.map(|files| files.to_string())),
    ];
    for (label, limit) in limits {
        if let Some(limit) = limit {
            labels.insert(label.to_owned(), limit);
        }
    }
    LogLimits::from_labels(labels).map(|_| ())
}

/// Where the output of a container with `labels` goes.
pub(crate) fn noted(labels: &Labels) -> Option<PathBuf> {
    labels.get(LABEL).map(PathBuf::from)
}

/// Makes an empty file, which the shim will append to.
///
/// # Errors
/// Those of making it.
pub(crate) fn make(path: &Path) -> Result<()> {
    let step = || format!("make log file {}", path.display());
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(step)?;
    }
    let mut options = OpenOptions::new();
    // What a container prints is not for everybody.
    options.write(true).create(true).truncate(true).mode(0o600).open(path).map(|_| ()).with_context(step)
}

/// Removes the log files of container `id` and the directories that become empty, if they are where we put them by default.
///
/// # Errors
/// Those of removing the file.
pub(crate) async fn remove(client: &Client, id: &str, labels: &Labels) -> Result<()> {
    let Some(path) = noted(labels) else { return Ok(()) };
    // A label is anybody's to write: nothing but this very path is removed.
    if path != default_path(client, id).await? {
        return Ok(());
    }
    for age in 0..MAX_FILES {
        let path = rotated(&path, age);
        match fs::remove_file(&path) {
            // The first may be missing while the others are there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && age > 0 => break,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(error).context(format!("remove log file {}", path.display())));
            }
            _ => {}
        }
    }
    for dir in path.ancestors().skip(1).take_while(|dir| *dir != Path::new(DIR)) {
        if fs::remove_dir(dir).is_err() {
            // Others' logs are in it.
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_made_anew_and_found_by_its_label() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/output.log");
        make(&path).unwrap();
        fs::write(&path, "old").unwrap();
        make(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        let mut labels = Labels::new();
        note(&mut labels, &path).unwrap();
        assert_eq!(noted(&labels), Some(path));
        assert_eq!(noted(&Labels::new()), None);
    }
}
