//! What the built-in runtime does in full. All else is named before anything is made.
//!
//! A list of what is known, not of what is missing: a field that nobody has thought of yet must not be ignored.

use std::path::Path;

use serde_json::{Map, Value};

use super::{cgroup, users};
use crate::guard;
use crate::spec::{list, text};

/// What an object may hold.
struct Known {
    /// Where the objects are; a list stands for each of its items.
    at: &'static str,
    fields: &'static [&'static str],
}

/// Source: the OCI runtime specification 1.3; what `libcontainer` 0.7 was read to do with each field.
const KNOWN: &[Known] = &[
    Known {
        at: "",
        fields: &[
            "ociVersion",
            "process",
            "root",
            "hostname",
            "domainname",
            "mounts",
            "hooks",
            "annotations",
            "linux",
        ],
    },
    Known { at: "/root", fields: &["path", "readonly"] },
    Known {
        at: "/hooks",
        fields: &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    },
    Known {
        at: "/linux",
        fields: &[
            "namespaces",
            "devices",
            "cgroupsPath",
            "resources",
            "seccomp",
            "rootfsPropagation",
            "maskedPaths",
            "readonlyPaths",
            "sysctl",
            "uidMappings",
            "gidMappings",
        ],
    },
    Known { at: "/linux/namespaces", fields: &["type", "path"] },
    Known { at: "/linux/uidMappings", fields: &["containerID", "hostID", "size"] },
    Known { at: "/linux/gidMappings", fields: &["containerID", "hostID", "size"] },
    Known { at: "/linux/devices", fields: &["path", "type", "major", "minor", "fileMode", "uid", "gid"] },
    Known {
        at: "/linux/resources",
        fields: &["devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "unified"],
    },
    Known { at: "/linux/resources/devices", fields: &["allow", "type", "major", "minor", "access"] },
    Known {
        at: "/linux/resources/memory",
        fields: &[
            "limit",
            "reservation",
            "swap",
            "kernel",
            "kernelTCP",
            "swappiness",
            "disableOOMKiller",
            "useHierarchy",
        ],
    },
    Known {
        at: "/linux/resources/cpu",
        fields: &["shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"],
    },
    Known { at: "/linux/resources/pids", fields: &["limit"] },
    Known {
        at: "/linux/seccomp",
        fields: &["defaultAction", "defaultErrnoRet", "architectures", "flags", "syscalls"],
    },
    Known { at: "/linux/seccomp/syscalls", fields: &["names", "action", "errnoRet", "args"] },
    Known { at: "/mounts", fields: &["destination", "type", "source", "options"] },
];

/// Source: as above, `process`.
const PROCESS: &[&str] = &[
    "terminal",
    "consoleSize",
    "user",
    "args",
    "env",
    "cwd",
    "capabilities",
    "rlimits",
    "noNewPrivileges",
    "apparmorProfile",
    "oomScoreAdj",
];
const USER: &[&str] = &["uid", "gid", "umask", "additionalGids", "username"];

/// Names that people know better than the field's own.
const NAMES: &[(&str, &str)] = &[
    ("linux.timeOffsets", "time namespaces"),
    ("linux.mountLabel", "SELinux labels"),
    ("process.selinuxLabel", "SELinux labels"),
    ("linux.seccomp.listenerPath", "seccomp notification"),
    ("linux.seccomp.listenerMetadata", "seccomp notification"),
    ("mounts.uidMappings", "id-mapped mounts"),
    ("mounts.gidMappings", "id-mapped mounts"),
];

/// Options that are accepted by `libcontainer` and then not, or not quite, obeyed.
const HALF_DONE: &[&str] = &[
    "remount",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
    "tmpcopyup",
    "sync",
    "dirsync",
    "mand",
    "nosymfollow",
    "rnosymfollow",
    "iversion",
    "copy-symlink",
];

/// Whether the built-in runtime does all that `spec`, an OCI runtime specification, asks for. `systemd_cgroup` says
/// whether systemd is to manage the cgroups.
///
/// # Errors
/// The name of the first feature that it lacks.
pub fn supports(spec: &Value, systemd_cgroup: bool) -> Result<(), String> {
    for known in KNOWN {
        match spec.pointer(known.at) {
            Some(Value::Object(fields)) => only(fields, known)?,
            Some(Value::Array(items)) => {
                for item in items.iter().filter_map(Value::as_object) {
                    only(item, known)?;
                }
            }
            _ => {}
        }
    }
    if let Some(process) = spec.get("process") {
        process_is_supported(process)?;
    }
    namespaces(spec)?;
    users::supported(spec)?;
    mounts(spec)?;
    devices(spec)?;
    if let Some(seccomp) = spec.pointer("/linux/seccomp") {
        let actions = list(seccomp, "/syscalls").iter().chain([seccomp]);
        for action in actions.flat_map(|rule| [text(rule, "/action"), text(rule, "/defaultAction")]).flatten()
        {
            if action == "SCMP_ACT_NOTIFY" {
                return Err("seccomp notification".to_owned());
            }
        }
    }
    match text(spec, "/linux/rootfsPropagation").unwrap_or_default() {
        "" | "private" | "rprivate" | "slave" | "rslave" => {}
        other => return Err(format!("root file system propagation {other:?}")),
    }
    let unified = cgroup::is_unified();
    let path = text(spec, "/linux/cgroupsPath").unwrap_or_default();
    if systemd_cgroup && !unified {
        return Err("systemd cgroups on cgroup v1".to_owned());
    }
    if !systemd_cgroup && path.contains(':') {
        return Err("systemd cgroup paths without systemd".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("cgroup path {path:?}"));
    }
    if !unified && spec.pointer("/linux/resources/unified").is_some_and(is_used) {
        return Err("unified resources on cgroup v1".to_owned());
    }
    Ok(())
}

/// Whether an exec's process asks for nothing unknown.
///
/// # Errors
/// The name of the first feature that is.
pub(super) fn process_is_supported(process: &Value) -> Result<(), String> {
    if let Some(fields) = process.as_object() {
        only(fields, &Known { at: "/process", fields: PROCESS })?;
    }
    if let Some(fields) = process.get("user").and_then(Value::as_object) {
        only(fields, &Known { at: "/process/user", fields: USER })?;
    }
    apparmor(text(process, "/apparmorProfile").unwrap_or_default())
}

/// Whether the kernel has a profile, which is asked only when init is nearly done.
///
/// Source: apparmor(7); the list is the kernel's, one `name (mode)` a line.
fn apparmor(profile: &str) -> Result<(), String> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if profile.is_empty() || profile == "unconfined" && enabled.starts_with('Y') {
        return Ok(());
    }
    if !enabled.starts_with('Y') {
        return Err(format!("AppArmor profile {profile:?} on a kernel without AppArmor"));
    }
    let Ok(profiles) = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles") else {
        // It is not mounted everywhere.
        return Ok(());
    };
    let known = profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile));
    if known { Ok(()) } else { Err(format!("AppArmor profile {profile:?}, which is not loaded")) }
}

fn only(fields: &Map<String, Value>, known: &Known) -> Result<(), String> {
    for (name, value) in fields {
        if known.fields.contains(&name.as_str()) || !is_used(value) {
            continue;
        }
        let path = format!("{}/{name}", known.at).trim_start_matches('/').replace('/', ".");
        let said = NAMES.iter().find(|(at, _)| *at == path).map(|(_, said)| (*said).to_owned());
        return Err(said.unwrap_or(path));
    }
    Ok(())
}

fn is_used(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

fn namespaces(spec: &Value) -> Result<(), String> {
    let mut mount = false;
    for namespace in list(spec, "/linux/namespaces") {
        match text(namespace, "/type").unwrap_or_default() {
            "pid" | "network" | "ipc" | "uts" | "cgroup" | "user" => {}
            "mount" if text(namespace, "/path").unwrap_or_default().is_empty() => mount = true,
            "mount" => return Err("a mount namespace that exists already".to_owned()),
            other => return Err(format!("{other} namespaces")),
        }
    }
    if mount { Ok(()) } else { Err("containers without a mount namespace".to_owned()) }
}

fn mounts(spec: &Value) -> Result<(), String> {
    let mut dev = false;
    for mount in list(spec, "/mounts") {
        let destination = guard::clean(Path::new(text(mount, "/destination").unwrap_or_default()));
        let kind = text(mount, "/type").unwrap_or_default();
        let options = list(mount, "/options");
        let has = |wanted: &str| options.iter().any(|option| option == wanted);
        if has("idmap") || has("ridmap") {
            return Err("id-mapped mounts".to_owned());
        }
        if let Some(half) = HALF_DONE.iter().find(|half| has(half)) {
            return Err(format!("mount option {half}"));
        }
        if kind.is_empty() && !has("bind") && !has("rbind") {
            return Err(format!("a mount without type at {destination:?}"));
        }
        if destination == Path::new("/dev") {
            // Its links and devices would be made in what is not the container's own.
            dev = kind == "tmpfs" && !has("ro");
        }
    }
    if dev { Ok(()) } else { Err("a /dev that is no writable tmpfs".to_owned()) }
}

/// Devices are made by path: nobody else may be able to change what that leads to (CVE-2024-45310).
fn devices(spec: &Value) -> Result<(), String> {
    for device in list(spec, "/linux/devices") {
        let path = Path::new(text(device, "/path").unwrap_or_default());
        if !path.starts_with("/dev") || path == Path::new("/dev") || guard::clean(path) != path {
            return Err(format!("linux.devices path {path:?}"));
        }
        let shared = list(spec, "/mounts").iter().find(|mount| {
            let options = list(mount, "/options");
            let destination = guard::clean(Path::new(text(mount, "/destination").unwrap_or_default()));
            options.iter().any(|option| option == "bind" || option == "rbind")
                && path.starts_with(&destination)
        });
        if let Some(mount) = shared {
            let destination = text(mount, "/destination").unwrap_or_default();
            return Err(format!("linux.devices path {path:?} inside the mount at {destination:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "selinuxLabel": ""},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "uidMappings": []},
        })
    }

    #[test]
    fn what_is_not_done_in_full_is_named() {
        assert_eq!(supports(&plain(), false), Ok(()));
        for (at, value, feature) in [
            (
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "user"}]),
                "linux.uidMappings without a range for 0",
            ),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "time"}]), "time namespaces"),
            ("/linux/namespaces", json!([{"type": "pid"}]), "containers without a mount namespace"),
            ("/linux/uidMappings", json!([{"containerID": 0}]), "linux.uidMappings without a user namespace"),
            ("/process/selinuxLabel", json!("x:y:z"), "SELinux labels"),
            ("/mounts", json!([]), "a /dev that is no writable tmpfs"),
            ("/linux/cgroupsPath", json!("system.slice:x:y"), "systemd cgroup paths without systemd"),
            ("/linux/cgroupsPath", json!("/a/../../b"), "cgroup path \"/a/../../b\""),
            ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "seccomp notification"),
            ("/linux/devices", json!([{"path": "/etc/x"}]), "linux.devices path \"/etc/x\""),
            ("/linux/devices", json!([{"path": "/dev/../x"}]), "linux.devices path \"/dev/../x\""),
            ("/linux/rootfsPropagation", json!("shared"), "root file system propagation \"shared\""),
            ("/linux/inventedLater", json!({"x": 1}), "linux.inventedLater"),
            ("/process/scheduler", json!({"policy": "SCHED_IDLE"}), "process.scheduler"),
        ] {
            let mut spec = plain();
            let (parent, field) = at.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[field] = value;
            assert_eq!(supports(&spec, false), Err(feature.to_owned()), "{at}");
        }
        for (mount, feature) in [
            (json!({"destination": "/x", "type": "bind", "options": ["bind", "idmap"]}), "id-mapped mounts"),
            (json!({"destination": "/x", "type": "bind", "uidMappings": [{}]}), "id-mapped mounts"),
            (json!({"destination": "/x", "type": "bind", "options": ["rshared"]}), "mount option rshared"),
        ] {
            let mut spec = plain();
            spec["mounts"].as_array_mut().unwrap().push(mount);
            assert_eq!(supports(&spec, false), Err(feature.to_owned()));
        }
        let mut spec = plain();
        spec["mounts"].as_array_mut().unwrap().push(json!(
            {"destination": "/dev/shared/", "type": "bind", "source": "/tmp", "options": ["rbind"]}
        ));
        spec["linux"]["devices"] = json!([{"path": "/dev/shared/x/null", "type": "c"}]);
        let lacking = supports(&spec, false).unwrap_err();
        assert_eq!(lacking, "linux.devices path \"/dev/shared/x/null\" inside the mount at \"/dev/shared/\"");
        // Mounted over again, it is not what devices may be made in.
        let mut spec = plain();
        spec["mounts"].as_array_mut().unwrap().push(json!(
            {"destination": "/x/../dev", "type": "bind", "source": "/tmp", "options": ["rbind"]}
        ));
        assert_eq!(supports(&spec, false).unwrap_err(), "a /dev that is no writable tmpfs");
    }
}
