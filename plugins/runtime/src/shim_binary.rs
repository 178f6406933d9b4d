//! Which program a runtime's name means.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use gantry_core::{Error, ErrorKind, Result};

/// Finds the shim of `runtime`; `runtime_path`, if not empty, overrules it.
///
/// # Errors
/// `InvalidArgument` for a name that can mean none; `NotFound` if it is not installed.
pub(crate) fn find(runtime: &str, runtime_path: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent);
    find_in(runtime, runtime_path, &std::env::var_os("PATH").unwrap_or_default(), beside)
}

/// As [`find`], for the start of a task or sandbox.
///
/// # Errors
/// `Unknown` for a runtime that is none. Source: semantics, Tasks.
pub(crate) fn find_or_unknown(runtime: &str, runtime_path: &str) -> Result<PathBuf> {
    find(runtime, runtime_path)
        .map_err(|error| error.with_kind(ErrorKind::Unknown).context("failed to resolve runtime path"))
}

// Source for order and texts: features I01 and the original's answers.
fn find_in(runtime: &str, runtime_path: &str, path: &OsStr, beside: Option<&Path>) -> Result<PathBuf> {
    if !runtime_path.is_empty() {
        return absolute(runtime_path).map_err(|error| error.context("invalid custom binary path"));
    }
    if runtime.is_empty() {
        return Err(Error::invalid_argument("no runtime name"));
    }
    if runtime.starts_with('/') {
        return absolute(runtime);
    }
    let wrong = || {
        Error::invalid_argument(format!(
            "invalid runtime name {runtime}, correct runtime name should be either format like \
             `io.containerd.runc.v2` or a full path to the binary"
        ))
    };
    let parts: Vec<&str> = runtime.split('.').collect();
    let [first, .., _] = parts.as_slice() else { return Err(wrong()) };
    let [.., name, version] = parts.as_slice() else { return Err(wrong()) };
    if [first, name, version].iter().any(|part| part.is_empty()) || runtime.contains(['/', '\0']) {
        return Err(wrong());
    }
    let binary = format!("containerd-shim-{name}-{version}");
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .chain(beside.map(Path::to_owned))
        .map(|dir| dir.join(&binary))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| {
            Error::not_found(format!(
                "runtime {runtime:?} binary not installed {binary:?}: file does not exist"
            ))
        })
}

fn absolute(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err(Error::invalid_argument(format!("runtime path {path:?} is not absolute")));
    }
    match is_executable(&path) {
        true => Ok(path),
        false => Err(Error::not_found(format!("runtime binary {path:?}: file does not exist"))),
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_last_two_parts_name_a_program_in_the_path_then_beside_the_daemon() {
        let (path, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let near = program(beside.path(), "containerd-shim-runc-v2");
        let find = |runtime: &str| find_in(runtime, "", path.path().as_os_str(), Some(beside.path()));
        assert_eq!(find("io.containerd.runc.v2").unwrap(), near);
        let first = program(path.path(), "containerd-shim-runc-v2");
        assert_eq!(find("io.containerd.runc.v2").unwrap(), first);
        assert_eq!(find("a.runc.v2").unwrap(), first);
        assert_eq!(find(near.to_str().unwrap()).unwrap(), near);
    }

    #[test]
    fn a_missing_program_and_a_bad_name_are_told_apart() {
        let missing = find_in("io.containerd.no.v9", "", OsStr::new(""), None).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("binary not installed \"containerd-shim-no-v9\""), "{missing}");
        for bad in ["", "runc", ".runc.v2", "a.b.", "../x.y", "a.b/../c.d"] {
            let error = find_in(bad, "", OsStr::new("/bin"), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        assert_eq!(
            find_in("a.b", "bin/sh", OsStr::new(""), None).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
}
