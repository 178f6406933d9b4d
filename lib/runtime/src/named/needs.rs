//! What a specification needs that an older runtime lacks.

use gantry_core::{Error, Result};
use serde_json::Value;

use super::probe::{Probe, Version, parse};
use crate::spec::{list, text};

/// What each version of the specification brought: where it is written, and its name. Older runtimes ignore what
/// they do not know, so each of these must be refused rather than lost.
///
/// Source: the ChangeLog of the OCI runtime specification.
const BROUGHT: &[(Version, &str, &str)] = &[
    ((1, 0, 2), "/linux/intelRdt/closID", "Intel RDT classes"),
    ((1, 0, 2), "/linux/personality", "personality"),
    ((1, 1, 0), "/domainname", "domainname"),
    ((1, 1, 0), "/linux/timeOffsets", "time namespaces"),
    ((1, 1, 0), "/linux/seccomp/listenerPath", "seccomp notification"),
    ((1, 1, 0), "/linux/resources/cpu/idle", "idle CPU weight"),
    ((1, 1, 0), "/linux/resources/cpu/burst", "CPU burst"),
    ((1, 1, 0), "/linux/resources/memory/checkBeforeUpdate", "checked memory updates"),
    ((1, 1, 0), "/process/scheduler", "scheduler attributes"),
    ((1, 1, 0), "/process/ioPriority", "I/O priority"),
    ((1, 2, 1), "/process/execCPUAffinity", "CPU affinity of execs"),
    ((1, 3, 0), "/linux/netDevices", "network devices"),
    ((1, 3, 0), "/linux/memoryPolicy", "memory policy"),
    ((1, 3, 0), "/linux/intelRdt/schemata", "Intel RDT schemata"),
    ((1, 3, 0), "/linux/intelRdt/enableMonitoring", "Intel RDT monitoring"),
];

/// Since when runtimes that do not say so map the ids of mounts. Source: as above.
const IDMAP_SINCE: Version = (1, 1, 0);

/// Lowers `ociVersion` to what the runtime takes, if nothing used needs more.
///
/// # Errors
/// `FailedPrecondition` naming the feature; `InvalidArgument` for a version that is none.
pub(super) fn adapt(spec: &mut Value, probe: &Probe) -> Result<()> {
    if let Some(feature) = lacking(spec, probe) {
        return Err(Error::failed_precondition(format!("does not support {feature}")));
    }
    let asked = text(spec, "/ociVersion").unwrap_or_default();
    let version = parse(asked).ok_or_else(|| Error::invalid_argument(format!("ociVersion {asked:?}")))?;
    if version.0 != probe.max_version.0 {
        return Err(Error::failed_precondition(format!("does not support ociVersion {asked}")));
    }
    if version > probe.max_version {
        tracing::debug!(from = asked, to = %probe.max_text, "lowered ociVersion");
        spec["ociVersion"] = probe.max_text.clone().into();
    }
    Ok(())
}

/// The first thing that the specification uses and the runtime lacks.
fn lacking(spec: &Value, probe: &Probe) -> Option<String> {
    for (since, pointer, name) in BROUGHT {
        if *since > probe.max_version && spec.pointer(pointer).is_some_and(is_used) {
            return Some((*name).to_owned());
        }
    }
    for namespace in list(spec, "/linux/namespaces") {
        let kind = text(namespace, "/type").unwrap_or_default();
        let known = if probe.namespaces.is_empty() {
            kind != "time" || probe.max_version >= (1, 1, 0)
        } else {
            probe.namespaces.iter().any(|known| known == kind)
        };
        if !known {
            return Some(format!("{kind} namespaces"));
        }
    }
    let idmap = probe.idmap.unwrap_or(probe.max_version >= IDMAP_SINCE);
    for mount in list(spec, "/mounts") {
        let mapped = ["/uidMappings", "/gidMappings"].iter().any(|at| mount.pointer(at).is_some_and(is_used));
        let option = |name: &str| list(mount, "/options").iter().any(|option| option == name);
        if (mapped || option("idmap") || option("ridmap")) && !idmap {
            return Some("id-mapped mounts".to_owned());
        }
        // Unknown options become data of the file system, which refuses them with words that help nobody.
        for recursive in ["rro", "rnosuid", "rnodev", "rnoexec"] {
            let known = probe.mount_options.iter().any(|known| known == recursive);
            if option(recursive) && !probe.mount_options.is_empty() && !known {
                return Some(format!("mount option {recursive}"));
            }
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn old() -> Probe {
        Probe {
            max_version: (1, 0, 2),
            max_text: "1.0.2-dev".to_owned(),
            namespaces: ["pid", "mount", "user"].map(str::to_owned).to_vec(),
            ..Probe::default()
        }
    }

    #[test]
    fn a_version_is_lowered_when_nothing_needs_it() {
        let mut spec =
            json!({"ociVersion": "1.3.0", "linux": {"namespaces": [{"type": "pid"}], "timeOffsets": {}}});
        adapt(&mut spec, &old()).unwrap();
        assert_eq!(spec["ociVersion"], "1.0.2-dev");
        let mut spec = json!({"ociVersion": "1.0.1"});
        adapt(&mut spec, &old()).unwrap();
        assert_eq!(spec["ociVersion"], "1.0.1");
    }

    #[test]
    fn what_is_needed_and_lacking_is_named() {
        for (spec, feature) in [
            (json!({"linux": {"namespaces": [{"type": "time"}]}}), "time namespaces"),
            (json!({"mounts": [{"uidMappings": [{"containerID": 0}]}]}), "id-mapped mounts"),
            (json!({"mounts": [{"options": ["bind", "ridmap"]}]}), "id-mapped mounts"),
            (json!({"process": {"scheduler": {"policy": "SCHED_BATCH"}}}), "scheduler attributes"),
            (json!({"domainname": "x"}), "domainname"),
        ] {
            let mut spec = spec;
            spec["ociVersion"] = "1.2.0".into();
            let error = adapt(&mut spec, &old()).unwrap_err();
            assert_eq!(error.kind(), gantry_core::ErrorKind::FailedPrecondition);
            assert!(error.to_string().contains(feature), "{error}");
            let new = Probe { max_version: (1, 3, 0), max_text: "1.3.0".into(), ..Probe::default() };
            adapt(&mut spec, &new).unwrap();
            assert_eq!(spec["ociVersion"], "1.2.0");
        }
    }

    #[test]
    fn a_version_that_is_none_is_refused() {
        for version in ["", "1", "x.y.z", "2.0.0"] {
            assert!(adapt(&mut json!({"ociVersion": version}), &old()).is_err());
        }
    }
}
