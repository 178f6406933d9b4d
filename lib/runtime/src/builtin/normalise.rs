//! Changes to a specification that close holes of `libcontainer`, or spell out what runc does by default.

use serde_json::{Value, json};

use super::cgroup;
use crate::devices;
use crate::spec::{list, text};

/// Spells out in `spec` what `libcontainer` would get wrong.
pub(super) fn container(spec: &mut Value, id: &str) {
    process(&mut spec["process"]);
    let ro_cgroup = read_only_cgroup(spec);
    if let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) {
        for mount in mounts {
            // It demands a source even where the kernel ignores it.
            if text(mount, "/source").unwrap_or_default().is_empty() {
                mount["source"] = text(mount, "/type").unwrap_or("none").into();
            }
        }
    }
    let linux = &mut spec["linux"];
    if !linux.is_object() {
        *linux = json!({});
    }
    if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
        for namespace in namespaces.iter_mut().filter_map(Value::as_object_mut) {
            // An empty path is no path.
            if namespace.get("path").is_some_and(|path| path == "" || path.is_null()) {
                namespace.remove("path");
            }
        }
    }
    if text(linux, "/cgroupsPath").unwrap_or_default().is_empty() {
        linux["cgroupsPath"] = format!("/{id}").into();
    }
    if let Some(propagation) = text(linux, "/rootfsPropagation") {
        let plain = propagation.strip_prefix('r').unwrap_or(propagation).to_owned();
        if plain.is_empty() {
            linux["rootfsPropagation"] = "slave".into();
        } else {
            linux["rootfsPropagation"] = plain.into();
        }
    }
    devices::deny_unless_allowed(linux);
    if let Some(destination) = ro_cgroup {
        protect_cgroup(linux, &destination);
    }
}

/// The same for a process by itself.
pub(super) fn process(process: &mut Value) {
    let Some(fields) = process.as_object_mut() else { return };
    // Present and false makes it load seccomp when it has lost the right to.
    if fields.get("noNewPrivileges").is_some_and(|value| value != true) {
        fields.remove("noNewPrivileges");
    }
    // What is absent would be kept, where runc drops it.
    let sets = fields.entry("capabilities").or_insert_with(|| json!({}));
    if !sets.is_object() {
        *sets = json!({});
    }
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        if !sets[set].is_array() {
            sets[set] = json!([]);
        }
    }
}

/// Whether a cgroup file system of version 1 is wanted that may be written to.
pub(super) fn writable_cgroup(spec: &Value) -> bool {
    let writable = |mount: &Value| {
        text(mount, "/type") == Some("cgroup") && !list(mount, "/options").iter().any(|option| option == "ro")
    };
    !cgroup::is_unified() && list(spec, "/mounts").iter().any(writable)
}

/// Where a read-only cgroup file system of version 1 is wanted: that it is read-only would be ignored.
fn read_only_cgroup(spec: &Value) -> Option<String> {
    let mount = list(spec, "/mounts").iter().find(|mount| text(mount, "/type") == Some("cgroup"))?;
    let ro = list(mount, "/options").iter().any(|option| option == "ro");
    (ro && !cgroup::is_unified()).then(|| text(mount, "/destination").unwrap_or_default().to_owned())
}

fn protect_cgroup(linux: &mut Value, destination: &str) {
    let destination = destination.trim_end_matches('/');
    let names = cgroup::hierarchies().into_iter().filter_map(|mount| {
        let name = mount.file_name()?.to_str()?.to_owned();
        Some(format!("{destination}/{name}"))
    });
    // The directory around them last: making it read-only copies what is below as it is then.
    let paths: Vec<Value> = names.chain([destination.to_owned()]).map(Value::from).collect();
    match linux.get_mut("readonlyPaths").and_then(Value::as_array_mut) {
        Some(old) => old.extend(paths.into_iter().filter(|path| !old.contains(path)).collect::<Vec<_>>()),
        None => linux["readonlyPaths"] = paths.into(),
    }
}

/// Whether some mount, or the root, is to follow what is mounted outside.
pub(super) fn wants_slave(spec: &Value) -> bool {
    let follows = |option: &Value| option == "slave" || option == "rslave";
    list(spec, "/mounts").iter().any(|mount| list(mount, "/options").iter().any(follows))
        || matches!(text(spec, "/linux/rootfsPropagation"), Some("slave" | "rslave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_spelled_out() {
        let mut spec = json!({
            "process": {"noNewPrivileges": false, "capabilities": {"bounding": ["CAP_CHOWN"]}},
            "mounts": [{"destination": "/proc", "type": "proc"}],
            "linux": {"namespaces": [{"type": "pid", "path": ""}], "rootfsPropagation": "rprivate"},
        });
        container(&mut spec, "web");
        assert!(spec["process"].get("noNewPrivileges").is_none());
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(spec["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(spec["mounts"][0]["source"], "proc");
        assert_eq!(spec["linux"]["namespaces"][0], json!({"type": "pid"}));
        assert_eq!(spec["linux"]["cgroupsPath"], "/web");
        assert_eq!(spec["linux"]["rootfsPropagation"], "private");
        assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": false, "access": "rwm"}]));
        let once = spec.clone();
        container(&mut spec, "web");
        assert_eq!(spec, once);
    }

    #[test]
    fn true_stays_true() {
        let mut spec = json!({"process": {"noNewPrivileges": true}});
        container(&mut spec, "web");
        assert_eq!(spec["process"]["noNewPrivileges"], true);
    }
}
