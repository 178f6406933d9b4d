//! What is refused before any runtime sees it: old runtimes fall for these, and a new one gains nothing.

mod lengths;
mod links;
mod mounts;
mod program;

use std::path::Path;

use gantry_core::{Error, Result, ResultExt};
use serde_json::Value;

use crate::spec::{Spec, list, text};
pub(crate) use links::clean;

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
    lengths::check(&spec.root)?;
    namespaces(&spec.root)?;
    mounts::check(&rootfs, &spec.root)?;
    match spec.root.get("process") {
        Some(process) if !process.is_null() => inside(process, &rootfs),
        _ => Err(Error::invalid_argument("the specification has no process")),
    }
}

/// Checks a process that is to be added to the container of `bundle`.
///
/// # Errors
/// `InvalidArgument`, saying what is wrong.
pub(crate) fn exec(process: &Value, bundle: &Path) -> Result<()> {
    match Spec::read(bundle).and_then(|spec| spec.rootfs(bundle)) {
        Ok(rootfs) => inside(process, &rootfs),
        // Whoever made the container may have taken it away.
        Err(_) => self::process(process),
    }
}

/// Checks a process against its image.
fn inside(process: &Value, rootfs: &Path) -> Result<()> {
    self::process(process)?;
    let cwd = text(process, "/cwd").unwrap_or("/");
    if links::walk(rootfs, Path::new(cwd)).magic {
        return Err(Error::invalid_argument(format!("process.cwd {cwd:?} leads into /proc")));
    }
    program::check(rootfs, process)
}

/// Of two namespaces of one kind runtimes take the last one, or refuse both.
fn namespaces(spec: &Value) -> Result<()> {
    let all = list(spec, "/linux/namespaces");
    let kind = |namespace: &Value| text(namespace, "/type").unwrap_or_default().to_owned();
    for (number, namespace) in all.iter().enumerate() {
        let kind_here = kind(namespace);
        if all[..number].iter().any(|earlier| kind(earlier) == kind_here) {
            return Err(Error::invalid_argument(format!("linux.namespaces names {kind_here:?} twice")));
        }
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
    if links::passes_descriptor(Path::new(cwd)) {
        return invalid(format!("process.cwd {cwd:?} leads into /proc"));
    }
    lengths::process(process)?;
    user(process)
}

/// A user or group that does not fit must not become another, and -1 means "as it was", which is root.
fn user(process: &Value) -> Result<()> {
    let Some(user) = process.get("user") else { return Ok(()) };
    let one = |field: &str, id: &Value| match id.as_u64() {
        Some(id) if id < u64::from(u32::MAX) => Ok(()),
        _ if id.is_null() => Ok(()),
        _ => Err(Error::invalid_argument(format!("process.user.{field} {id} is no id"))),
    };
    for field in ["uid", "gid"] {
        one(field, user.get(field).unwrap_or(&Value::Null))?;
    }
    list(user, "/additionalGids").iter().try_for_each(|gid| one("additionalGids", gid))
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
    fn an_id_of_a_user_stays_what_it_is() {
        let with = |user: Value| process(&serde_json::json!({"args": ["sh"], "cwd": "/", "user": user}));
        for good in
            [serde_json::json!({}), serde_json::json!({"uid": 4_294_967_294u32, "additionalGids": [0]})]
        {
            with(good).unwrap();
        }
        for bad in [
            serde_json::json!({"uid": 4_294_967_295u32}),
            serde_json::json!({"gid": 4_294_967_296u64}),
            serde_json::json!({"uid": -1}),
            serde_json::json!({"uid": "0"}),
            serde_json::json!({"additionalGids": [5, 4_294_967_295u32]}),
        ] {
            let error = with(bad).unwrap_err();
            assert!(error.to_string().contains("process.user."), "{error}");
        }
    }

    #[test]
    fn a_kind_of_namespace_is_named_once() {
        let spec = |list: Value| serde_json::json!({"linux": {"namespaces": list}});
        namespaces(&spec(serde_json::json!([{"type": "pid"}, {"type": "ipc"}]))).unwrap();
        let twice = spec(serde_json::json!([{"type": "pid"}, {"type": "pid", "path": "/proc/1/ns/pid"}]));
        assert!(namespaces(&twice).is_err());
    }

    #[test]
    fn an_id_is_a_plain_name() {
        for bad in ["", ".", "..", "a/b", "../x", "-x", "ä", "a b", &"x".repeat(256)] {
            assert!(id(bad).is_err(), "{bad}");
        }
        id("web_1.2-3+4").unwrap();
    }
}
