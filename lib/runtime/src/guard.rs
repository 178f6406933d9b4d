//! What is refused before any runtime sees it: old runtimes fall for these, and a new one gains nothing.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use serde_json::Value;

use crate::spec::{Spec, text};

/// Symbolic links followed before giving up. Source: the kernel's own limit, path_resolution(7).
const MAX_LINKS: usize = 40;

/// Checks a container's specification against its image.
///
/// # Errors
/// `InvalidArgument`, saying what is wrong.
pub(crate) fn container(spec: &Spec, bundle: &Path) -> Result<()> {
    let rootfs = spec.rootfs(bundle)?;
    let found = std::fs::metadata(&rootfs).with_context(|| format!("root file system {rootfs:?}"))?;
    if !found.is_dir() {
        return Err(Error::invalid_argument(format!("root file system {rootfs:?} is no directory")));
    }
    // CVE-2026-41579: runtimes replace `ptmx` and make links in what they take for the container's /dev.
    for name in ["dev", "proc", "sys"] {
        let path = rootfs.join(name);
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Err(Error::invalid_argument(format!("/{name} of the image is a symbolic link")));
        }
    }
    let process = spec.root.get("process");
    match process {
        Some(process) if !process.is_null() => self::process(process)?,
        _ => return Err(Error::invalid_argument("the specification has no process")),
    }
    let cwd = process.and_then(|process| text(process, "/cwd")).unwrap_or("/");
    if leads_to_proc(&rootfs, Path::new(cwd)) {
        return Err(Error::invalid_argument(format!("process.cwd {cwd:?} leads into /proc")));
    }
    Ok(())
}

/// Checks a process by itself.
///
/// # Errors
/// `InvalidArgument`, saying what is wrong.
pub(crate) fn process(process: &Value) -> Result<()> {
    let invalid = |what: String| Err(Error::invalid_argument(what));
    let args = process.get("args").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if args.first().and_then(Value::as_str).is_none_or(str::is_empty) {
        return invalid("process.args names no program".to_owned());
    }
    for (what, strings) in [("args", args), ("env", crate::spec::list(process, "/env"))] {
        if strings.iter().any(|string| string.as_str().is_none_or(|string| string.contains('\0'))) {
            return invalid(format!("process.{what} holds what is no string, or a zero byte"));
        }
    }
    let cwd = text(process, "/cwd").unwrap_or_default();
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return invalid(format!("process.cwd {cwd:?} is no absolute path"));
    }
    // CVE-2024-21626: a descriptor that the runtime left open is a way out of the container.
    if passes_descriptor(Path::new(cwd)) {
        return invalid(format!("process.cwd {cwd:?} leads into /proc"));
    }
    Ok(())
}

/// Whether `path` passes through somebody's descriptors, directory or root, be it to climb out again.
fn passes_descriptor(path: &Path) -> bool {
    let mut at = PathBuf::from("/");
    path.components().any(|part| {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => {
                at.pop();
            }
            _ => {}
        }
        is_descriptor(&at)
    })
}

/// Whether a clean path is that of somebody's descriptors, directory or root: `/proc/<who>/fd` and the like.
fn is_descriptor(path: &Path) -> bool {
    let mut parts = path.iter().skip(1);
    if parts.next() != Some("proc".as_ref()) {
        return false;
    }
    let who = parts.next().unwrap_or_default();
    let digits =
        who.to_str().is_some_and(|who| !who.is_empty() && who.bytes().all(|byte| byte.is_ascii_digit()));
    if who != "self" && who != "thread-self" && !digits {
        return false;
    }
    parts.any(|part| ["fd", "cwd", "root", "exe", "map_files"].iter().any(|magic| part == *magic))
}

/// Whether `path`, its links followed inside `root`, is one of those.
fn leads_to_proc(root: &Path, path: &Path) -> bool {
    let mut left: Vec<OsString> = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(&name);
        if is_descriptor(&at) {
            return true;
        }
        let outside = root.join(at.strip_prefix("/").unwrap_or(&at));
        if let Ok(target) = std::fs::read_link(outside) {
            links += 1;
            if links > MAX_LINKS {
                return true;
            }
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            left.extend(parts(&target));
        }
    }
    false
}

/// The components of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(named).collect()
}

/// Checks a container's id: it becomes a directory's name.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn id(id: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    // Source: runc's own rule for ids.
    if id.is_empty()
        || id.len() > 255
        || id == "."
        || id == ".."
        || id.starts_with('-')
        || !id.bytes().all(good)
    {
        return Err(Error::invalid_argument(format!("container id {id:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn with(cwd: &str) -> Value {
        serde_json::json!({"args": ["sh"], "cwd": cwd})
    }

    #[test]
    fn a_directory_among_descriptors_is_refused() {
        for n in 0..50 {
            assert!(process(&with(&format!("/proc/self/fd/{n}"))).is_err());
        }
        for cwd in
            ["/proc/1/fd/7/../..", "//proc/./thread-self/fd", "/a/../proc/self/cwd", "/proc/self/task/1/fd/8"]
        {
            assert!(process(&with(cwd)).is_err(), "{cwd}");
        }
        for cwd in ["/", "/proc", "/proc/sys", "/home/proc/self/fd", "/procs/self/fd"] {
            process(&with(cwd)).unwrap();
        }
        for cwd in ["", "relative", "/zero\0byte"] {
            assert!(process(&with(cwd)).is_err());
        }
    }

    #[test]
    fn links_of_the_image_are_followed_inside_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("w")).unwrap();
        symlink("/proc/self/fd/7", root.path().join("direct")).unwrap();
        symlink("../../direct", root.path().join("w/indirect")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        symlink("/w", root.path().join("fine")).unwrap();
        assert!(leads_to_proc(root.path(), Path::new("/direct")));
        assert!(leads_to_proc(root.path(), Path::new("/w/indirect/x")));
        assert!(leads_to_proc(root.path(), Path::new("/loop")));
        assert!(!leads_to_proc(root.path(), Path::new("/fine/absent")));
        assert!(!leads_to_proc(root.path(), Path::new("/etc/../..")));
    }

    #[test]
    fn an_images_dev_must_be_a_directory() {
        let bundle = tempfile::tempdir().unwrap();
        let root = bundle.path().join("rootfs");
        std::fs::create_dir(&root).unwrap();
        let text = r#"{"root":{"path":"rootfs"},"process":{"args":["sh"],"cwd":"/"}}"#;
        std::fs::write(bundle.path().join("config.json"), text).unwrap();
        let spec = Spec::read(bundle.path()).unwrap();
        container(&spec, bundle.path()).unwrap();
        symlink("/tmp", root.join("dev")).unwrap();
        let error = container(&spec, bundle.path()).unwrap_err();
        assert!(error.to_string().contains("/dev of the image is a symbolic link"), "{error}");
    }

    #[test]
    fn a_process_needs_a_program_of_strings() {
        for bad in [
            serde_json::json!({"args": [], "cwd": "/"}),
            serde_json::json!({"cwd": "/"}),
            serde_json::json!({"args": [""], "cwd": "/"}),
            serde_json::json!({"args": ["sh", 7], "cwd": "/"}),
            serde_json::json!({"args": ["sh"], "env": ["A=\0"], "cwd": "/"}),
        ] {
            assert!(process(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_is_a_plain_name() {
        for bad in ["", ".", "..", "a/b", "../x", "-x", "ä", "a b", &"x".repeat(256)] {
            assert!(id(bad).is_err(), "{bad}");
        }
        id("web_1.2-3+4").unwrap();
    }
}
