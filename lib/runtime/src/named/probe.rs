//! What a runtime's binary can do: found out once per binary.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::process::Capture;
use rustix::fs::{Access, AtFlags, CWD};
use serde::Deserialize;

/// A version of the OCI runtime specification, without what comes after a dash.
pub(super) type Version = (u32, u32, u32);

/// What is assumed of a binary that says nothing. Source: the first version that every runtime accepts.
const OLDEST: Version = (1, 0, 0);

/// How many binaries are remembered; more than anybody has.
const MAX_REMEMBERED: usize = 64;

/// What a binary says of itself.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// The newest specification that it takes.
    pub(super) max_version: Version,
    /// That version as it spells it.
    pub(super) max_text: String,
    /// The namespaces that it makes; empty if it does not say.
    pub(super) namespaces: Vec<String>,
    /// The mount options that it knows; empty if it does not say.
    pub(super) mount_options: Vec<String>,
    /// Whether it maps the ids of mounts; `None` if it does not say.
    pub(super) idmap: Option<bool>,
    /// Its features document, if it has one.
    pub(super) document: Vec<u8>,
}

/// A binary, as long as nobody replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// Source: the OCI runtime specification, "Features".
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Features {
    oci_version_max: String,
    mount_options: Option<Vec<String>>,
    linux: Option<LinuxFeatures>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LinuxFeatures {
    namespaces: Option<Vec<String>>,
    mount_extensions: Option<MountExtensions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MountExtensions {
    idmap: Option<Switch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Switch {
    enabled: Option<bool>,
}

/// The file of the runtime called `name`, a file name to be found in `PATH`, or an absolute path.
///
/// # Errors
/// `NotFound`; `InvalidArgument` for relative paths.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let executable = |path: &Path| {
        path.is_file() && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    let absent = || Error::not_found(format!("OCI runtime {name:?} is not installed"));
    if name.starts_with('/') {
        let path = PathBuf::from(name);
        return if executable(&path) { Ok(path) } else { Err(absent()) };
    }
    if name.is_empty() || name.contains('/') || name.starts_with('-') {
        return Err(Error::invalid_argument(format!(
            "OCI runtime {name:?} is neither a name nor an absolute path"
        )));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|candidate| executable(candidate))
        .ok_or_else(absent)
}

/// What the binary at `path` can do.
///
/// # Errors
/// `NotFound` if it is gone; `DeadlineExceeded` if it does not answer.
pub(super) async fn of(path: &Path, timeout: Duration) -> Result<Arc<Probe>> {
    static KNOWN: Mutex<Option<HashMap<Identity, Arc<Probe>>>> = Mutex::new(None);
    let found = std::fs::metadata(path).with_context(|| format!("OCI runtime {path:?}"))?;
    let identity = Identity {
        path: path.to_owned(),
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
    };
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(probe) = lock().as_ref().and_then(|known| known.get(&identity)) {
        return Ok(Arc::clone(probe));
    }
    let probe = Arc::new(ask(path, timeout).await?);
    let mut known = lock();
    let known = known.get_or_insert_with(HashMap::new);
    if known.len() >= MAX_REMEMBERED {
        known.clear();
    }
    known.insert(identity, Arc::clone(&probe));
    Ok(probe)
}

async fn ask(path: &Path, timeout: Duration) -> Result<Probe> {
    let run = async |arg: &str| {
        let capture = Capture { timeout: Some(timeout), ..Capture::default() };
        super::spawn(path).arg(arg).process_group(0).output(capture).await
    };
    // Runtimes older than the command fail it, which says nothing bad of them.
    let output = run("features").await?;
    if output.status.success()
        && let Ok(features) = serde_json::from_slice::<Features>(&output.stdout)
        && let Some(max_version) = parse(&features.oci_version_max)
    {
        let linux = features.linux.unwrap_or_default();
        return Ok(Probe {
            max_version,
            max_text: features.oci_version_max,
            namespaces: linux.namespaces.unwrap_or_default(),
            mount_options: features.mount_options.unwrap_or_default(),
            idmap: linux
                .mount_extensions
                .and_then(|extensions| extensions.idmap)
                .and_then(|idmap| idmap.enabled),
            document: output.stdout,
        });
    }
    let output = run("--version").await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let spec =
        text.lines().find_map(|line| line.trim().strip_prefix("spec:")).map(str::trim).unwrap_or_default();
    let (max_version, max_text) = match parse(spec) {
        Some(version) => (version, spec.to_owned()),
        None => (OLDEST, "1.0.0".to_owned()),
    };
    Ok(Probe { max_version, max_text, ..Probe::default() })
}

/// The numbers of `1.0.2-dev`.
pub(super) fn parse(version: &str) -> Option<Version> {
    let plain = version.split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(|number| number.parse().ok());
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Some((major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("runtime");
        std::fs::write(&path, format!("#!/bin/sh\necho x >>{}/asked\n{text}\n", dir.display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_binary_is_asked_once_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let features = r#"echo '{"ociVersionMax":"1.2.0","linux":{"namespaces":["pid"],"mountExtensions":{"idmap":{"enabled":true}}}}'"#;
        let path = script(dir.path(), features);
        for _ in 0..3 {
            let probe = of(&path, Duration::from_secs(60)).await.unwrap();
            assert_eq!((probe.max_version, probe.idmap), ((1, 2, 0), Some(true)));
            assert_eq!(probe.namespaces, ["pid"]);
        }
        let asked = || std::fs::read_to_string(dir.path().join("asked")).unwrap().len();
        assert_eq!(asked(), 2);
        let path = script(dir.path(), "test $1 = --version && echo 'x version 1\nspec: 1.0.2-dev' || exit 1");
        let probe = of(&path, Duration::from_secs(60)).await.unwrap();
        assert_eq!((probe.max_version, probe.max_text.as_str()), ((1, 0, 2), "1.0.2-dev"));
        assert_eq!(asked(), 6);
    }

    #[tokio::test]
    async fn one_that_never_answers_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), "exec sleep 1000");
        let error = of(&path, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::DeadlineExceeded);
    }

    #[test]
    fn names_are_found_in_path_and_nowhere_else() {
        assert_eq!(find("sh").unwrap().file_name().unwrap(), "sh");
        assert!(find("/bin/sh").is_ok());
        for bad in ["", "./sh", "bin/sh", "-x", "no-such-runtime", "/no/such", "/tmp"] {
            assert!(find(bad).is_err(), "{bad}");
        }
    }
}
