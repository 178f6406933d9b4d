//! User namespaces: what a specification maps, and making one beforehand.
//!
//! `libcontainer` makes one itself, but then leaves the container's cgroups to systemd, and raises limits when it may not
//! any more. So it is given one that exists already.

use std::os::fd::{AsRawFd, OwnedFd};

use gantry_core::{Error, Result};
use gantry_sys::user_namespace::{self, IdRange};
use rustix::process::Rlimit;
use serde_json::Value;

use crate::limits::RESOURCES;
use crate::spec::{list, text};

/// The user namespace of a specification.
fn namespace(spec: &Value) -> Option<&Value> {
    list(spec, "/linux/namespaces").iter().find(|namespace| text(namespace, "/type") == Some("user"))
}

fn existing(namespace: &Value) -> Option<&str> {
    text(namespace, "/path").filter(|path| !path.is_empty())
}

fn ranges(spec: &Value, field: &str) -> Result<Vec<IdRange>> {
    let range = |range: &Value| {
        let number =
            |field: &str| range.get(field).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        Some(IdRange { inside: number("containerID")?, outside: number("hostID")?, count: number("size")? })
    };
    let all = list(spec, &format!("/linux/{field}")).iter().map(range).collect::<Option<Vec<_>>>();
    all.ok_or_else(|| Error::invalid_argument(format!("linux.{field} holds what is no range of ids")))
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let range = ranges.iter().find(|range| id >= range.inside && id - range.inside < range.count)?;
    range.outside.checked_add(id - range.inside)
}

/// Whether the container's user namespace, if it has one, can be made, and has everybody who is to be in it.
///
/// # Errors
/// What is missing.
pub(super) fn supported(spec: &Value) -> Result<(), String> {
    let Some(namespace) = namespace(spec) else {
        let mut maps = ["uidMappings", "gidMappings"].into_iter();
        let used = maps.find(|field| !list(spec, &format!("/linux/{field}")).is_empty());
        return used.map_or(Ok(()), |field| Err(format!("linux.{field} without a user namespace")));
    };
    for (field, id) in [("uidMappings", "uid"), ("gidMappings", "gid")] {
        let ranges = ranges(spec, field).map_err(|error| error.to_string())?;
        if ranges.is_empty() && existing(namespace).is_some() {
            continue;
        }
        if outside(&ranges, 0).is_none() {
            return Err(format!("linux.{field} without a range for 0"));
        }
        let mut ids: Vec<u64> =
            spec.pointer(&format!("/process/user/{id}")).and_then(Value::as_u64).into_iter().collect();
        if id == "gid" {
            ids.extend(list(spec, "/process/user/additionalGids").iter().filter_map(Value::as_u64));
        }
        for number in ids {
            if u32::try_from(number).ok().and_then(|number| outside(&ranges, number)).is_none() {
                return Err(format!("process.user {id} {number}, which linux.{field} has no range for"));
            }
        }
    }
    Ok(())
}

/// Who user `uid` of the container is outside; `None` if nobody knows.
pub(super) fn host_uid(spec: &Value, uid: u32) -> Option<u32> {
    match namespace(spec) {
        None => Some(uid),
        Some(_) => outside(&ranges(spec, "uidMappings").ok()?, uid),
    }
}

/// Whether the container has a user namespace.
pub(super) fn has_namespace(spec: &Value) -> bool {
    namespace(spec).is_some()
}

/// Makes the user namespace that `spec` asks for and names it there; it lasts as long as what is returned.
///
/// # Errors
/// `InvalidArgument` for maps that the kernel refuses.
pub(super) fn make(spec: &mut Value) -> Result<Option<OwnedFd>> {
    let Some(found) = namespace(spec) else { return Ok(None) };
    raise_limits(spec)?;
    let made = if existing(found).is_some() {
        None
    } else {
        Some(user_namespace::create(&ranges(spec, "uidMappings")?, &ranges(spec, "gidMappings")?)?)
    };
    if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let all = linux.get_mut("namespaces").and_then(Value::as_array_mut).into_iter().flatten();
        for namespace in all.filter(|namespace| text(namespace, "/type") == Some("user")) {
            if let Some(made) = &made {
                // The forks of this process have the same descriptors.
                namespace["path"] = format!("/proc/self/fd/{}", made.as_raw_fd()).into();
            }
        }
    }
    Ok(made)
}

/// Limits are set after the namespace was entered, and nobody in there may raise one.
fn raise_limits(spec: &Value) -> Result<()> {
    for limit in list(spec, "/process/rlimits") {
        let kind = text(limit, "/type").unwrap_or_default();
        let hard = limit.get("hard").and_then(Value::as_u64);
        let (Some((_, resource)), Some(hard)) = (RESOURCES.iter().find(|(name, _)| *name == kind), hard)
        else {
            continue;
        };
        let now = rustix::process::getrlimit(*resource);
        if now.maximum.is_some_and(|now| now < hard) {
            let new = Rlimit { maximum: (hard != u64::MAX).then_some(hard), ..now };
            rustix::process::setrlimit(*resource, new)
                .map_err(|error| Error::io(error.into()).context(format!("raise {kind}")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(user: &Value) -> Value {
        json!({
            "process": {"user": user},
            "linux": {
                "namespaces": [{"type": "user"}],
                "uidMappings": [{"containerID": 0, "hostID": 100, "size": 10}],
                "gidMappings": [{"containerID": 0, "hostID": 100, "size": 5}, {"containerID": 5, "hostID": 7, "size": 1}],
            },
        })
    }

    #[test]
    fn everybody_has_a_range() {
        assert_eq!(supported(&spec(&json!({"uid": 9, "gid": 4, "additionalGids": [0, 5]}))), Ok(()));
        for (user, lacking) in [
            (json!({"uid": 10}), "process.user uid 10, which linux.uidMappings has no range for"),
            (json!({"gid": 6}), "process.user gid 6, which linux.gidMappings has no range for"),
            (json!({"additionalGids": [7]}), "process.user gid 7, which linux.gidMappings has no range for"),
        ] {
            assert_eq!(supported(&spec(&user)), Err(lacking.to_owned()));
        }
        let mut without = spec(&json!({}));
        without["linux"]["gidMappings"] = json!([{"containerID": 1, "hostID": 100, "size": 5}]);
        assert_eq!(supported(&without), Err("linux.gidMappings without a range for 0".to_owned()));
        without["linux"]["namespaces"] = json!([]);
        assert_eq!(supported(&without), Err("linux.uidMappings without a user namespace".to_owned()));
        without["linux"]["gidMappings"] = json!([{"containerID": -1}]);
        without["linux"]["namespaces"] = json!([{"type": "user"}]);
        assert!(supported(&without).is_err());
        // One that exists already has its own.
        let joined = json!({"linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}});
        assert_eq!(supported(&joined), Ok(()));
    }

    #[test]
    fn a_user_is_somebody_outside() {
        let spec = spec(&json!({}));
        assert_eq!((host_uid(&spec, 3), host_uid(&spec, 10)), (Some(103), None));
        assert_eq!(host_uid(&json!({}), 10), Some(10));
    }
}
