//! Changing a container's resources: files of its cgroups.

use std::path::Path;

use gantry_core::{Error, Result};
use serde_json::Value;

use super::cgroup::{self, Group};

/// A field of `resources`, the controller and file of version 1, and the file of version 2.
struct Field {
    at: &'static str,
    controller: &'static str,
    v1: &'static str,
    v2: &'static str,
}

/// Source: the OCI runtime specification, "Linux", `resources`; the kernel's cgroup-v1 and cgroup-v2 documents.
const FIELDS: &[Field] = &[
    Field { at: "/cpu/shares", controller: "cpu", v1: "cpu.shares", v2: "cpu.weight" },
    Field { at: "/cpu/period", controller: "cpu", v1: "cpu.cfs_period_us", v2: "" },
    Field { at: "/cpu/quota", controller: "cpu", v1: "cpu.cfs_quota_us", v2: "" },
    Field { at: "/cpu/cpus", controller: "cpuset", v1: "cpuset.cpus", v2: "cpuset.cpus" },
    Field { at: "/cpu/mems", controller: "cpuset", v1: "cpuset.mems", v2: "cpuset.mems" },
    Field {
        at: "/memory/reservation",
        controller: "memory",
        v1: "memory.soft_limit_in_bytes",
        v2: "memory.low",
    },
    Field { at: "/memory/limit", controller: "memory", v1: "memory.limit_in_bytes", v2: "memory.max" },
    Field {
        at: "/memory/swap",
        controller: "memory",
        v1: "memory.memsw.limit_in_bytes",
        v2: "memory.swap.max",
    },
    Field { at: "/memory/swappiness", controller: "memory", v1: "memory.swappiness", v2: "" },
    Field { at: "/pids/limit", controller: "pids", v1: "pids.max", v2: "pids.max" },
    Field { at: "/blockIO/weight", controller: "blkio", v1: "blkio.weight", v2: "io.weight" },
];

/// Writes what `resources` says, and nothing else.
///
/// # Errors
/// `Unimplemented` naming a field that cannot be changed; otherwise what the kernel said.
pub(super) fn apply(groups: &[Group], resources: &Value) -> Result<()> {
    refuse_unknown(resources)?;
    let v2 = groups.iter().find(|group| group.controllers.is_empty());
    // Raising the limit above the present swap limit, or lowering that below the limit, fails in one of two orders.
    let mut late: Vec<(&Path, &str, String)> = Vec::new();
    for field in FIELDS {
        let Some(value) = resources.pointer(field.at).filter(|value| !is_unset(value)) else { continue };
        if let Some(group) = groups.iter().find(|group| group.has(field.controller)) {
            let text = if field.v1 == "pids.max" { maximum(value) } else { plain(value) };
            if let Err(error) = cgroup::write(&group.dir, field.v1, &text) {
                tracing::debug!(%error, "try again after the other fields");
                late.push((&group.dir, field.v1, text));
            }
        } else if let Some(group) = v2 {
            let text = match field.at {
                "/cpu/shares" => weight(value),
                "/cpu/period" | "/cpu/quota" => continue,
                "/memory/swap" => swap(resources, value),
                _ if field.v2.is_empty() => {
                    return Err(Error::unimplemented(format!("update {} on cgroup v2", field.at)));
                }
                "/cpu/cpus" | "/cpu/mems" | "/blockIO/weight" => plain(value),
                _ => maximum(value),
            };
            cgroup::write(&group.dir, field.v2, &text)?;
        } else {
            return Err(Error::unimplemented(format!("update without the {} controller", field.controller)));
        }
    }
    for (dir, name, text) in late {
        cgroup::write(dir, name, &text)?;
    }
    if let Some(group) = v2.filter(|_| !groups.iter().any(|group| group.has("cpu"))) {
        quota(group, resources)?;
        for (name, value) in resources.get("unified").and_then(Value::as_object).into_iter().flatten() {
            if name.contains('/') || !name.contains('.') {
                return Err(Error::invalid_argument(format!("unified resource {name:?}")));
            }
            cgroup::write(&group.dir, name, value.as_str().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn refuse_unknown(resources: &Value) -> Result<()> {
    for (section, fields) in resources.as_object().into_iter().flatten() {
        if matches!(section.as_str(), "unified") || is_unset(fields) {
            continue;
        }
        let Some(fields) = fields.as_object() else {
            // Clients send the device rules of the container along with every update.
            if section == "devices" || fields.as_array().is_some_and(Vec::is_empty) {
                continue;
            }
            return Err(Error::unimplemented(format!("update {section}")));
        };
        for (name, value) in fields {
            let at = format!("/{section}/{name}");
            if !is_unset(value) && value != &Value::Bool(false) && !FIELDS.iter().any(|field| field.at == at)
            {
                return Err(Error::unimplemented(format!("update {section}.{name}")));
            }
        }
    }
    Ok(())
}

/// Source: runc takes 0 and an empty text as "leave it".
fn is_unset(value: &Value) -> bool {
    value.is_null() || value == 0 || value == ""
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn maximum(value: &Value) -> String {
    match value.as_i64() {
        Some(number) if number < 0 => "max".to_owned(),
        _ => plain(value),
    }
}

/// Source: runc's conversion of 2..=262144 shares to a weight of 1..=10000.
fn weight(shares: &Value) -> String {
    let shares = shares.as_u64().unwrap_or(1024).clamp(2, 262_144);
    (1 + (shares - 2) * 9999 / 262_142).to_string()
}

/// Version 1 counts memory and swap together, version 2 swap alone.
fn swap(resources: &Value, both: &Value) -> String {
    let limit = resources.pointer("/memory/limit").and_then(Value::as_i64).unwrap_or(0);
    match both.as_i64() {
        Some(both) if both >= limit && limit >= 0 => (both - limit).to_string(),
        _ => "max".to_owned(),
    }
}

fn quota(group: &Group, resources: &Value) -> Result<()> {
    let number = |at: &str| resources.pointer(at).filter(|value| !is_unset(value)).and_then(Value::as_i64);
    let (quota, period) = (number("/cpu/quota"), number("/cpu/period"));
    if quota.is_none() && period.is_none() {
        return Ok(());
    }
    let quota = match quota {
        Some(quota) if quota > 0 => quota.to_string(),
        Some(_) => "max".to_owned(),
        // A period alone keeps the quota that is there.
        None => {
            let now = std::fs::read_to_string(group.dir.join("cpu.max")).unwrap_or_default();
            now.split_whitespace().next().unwrap_or("max").to_owned()
        }
    };
    let text = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
    cgroup::write(&group.dir, "cpu.max", &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(dir: &Path, controllers: &[&str]) -> Group {
        Group {
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            dir: dir.to_owned(),
        }
    }

    #[test]
    fn each_version_gets_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let resources = json!({
            "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": ""},
            "memory": {"limit": 1 << 20, "swap": 3 << 20, "swappiness": 0},
            "pids": {"limit": -1}, "devices": [{"allow": false}], "network": null,
        });
        apply(&[group(dir.path(), &["cpu", "cpuset", "memory", "pids"])], &resources).unwrap();
        assert_eq!((read("cpu.shares").as_str(), read("cpu.cfs_quota_us").as_str()), ("1024", "50000"));
        assert_eq!((read("memory.limit_in_bytes").as_str(), read("pids.max").as_str()), ("1048576", "max"));
        apply(&[group(dir.path(), &[])], &resources).unwrap();
        assert_eq!((read("cpu.weight").as_str(), read("cpu.max").as_str()), ("39", "50000 100000"));
        assert_eq!((read("memory.max").as_str(), read("memory.swap.max").as_str()), ("1048576", "2097152"));
    }

    #[test]
    fn what_cannot_be_changed_is_named() {
        let error = apply(&[], &json!({"memory": {"kernel": 7}})).unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::Unimplemented);
        assert!(error.to_string().contains("memory.kernel"), "{error}");
        assert!(apply(&[], &json!({"rdma": {"x": 1}})).is_err());
        assert!(apply(&[], &json!({"pids": {"limit": 7}})).is_err());
        let dir = tempfile::tempdir().unwrap();
        let climbing = json!({"unified": {"../x.y": "1"}});
        assert!(apply(&[group(dir.path(), &[])], &climbing).is_err());
    }
}
