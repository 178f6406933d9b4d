//! What is too long, or too much, for some runtime or for the kernel.

use gantry_core::{Error, Result};
use serde_json::Value;

use crate::spec::list;

/// The longest text of a specification. Old versions of runc count the bytes of some in 16 bits (CVE-2021-43784).
const MAX_TEXT_BYTES: usize = u16::MAX as usize;

/// The longest argument or variable, without its zero byte. Source: the kernel's `MAX_ARG_STRLEN`, execve(2).
const MAX_ARGUMENT_BYTES: usize = (128 << 10) - 1;

/// The most ranges in one map of ids. Source: user_namespaces(7).
const MAX_RANGES: usize = 340;

/// Checks all of a specification.
///
/// # Errors
/// `InvalidArgument`, naming the field.
pub(super) fn check(spec: &Value) -> Result<()> {
    texts(spec, &mut String::new())?;
    let lists = list(spec, "/mounts").iter().map(|mount| (mount, "a mount's"));
    for (at, whose) in lists.chain([(&spec["linux"], "linux")]) {
        for field in ["uidMappings", "gidMappings"] {
            let ranges = at.get(field).and_then(Value::as_array).map_or(0, Vec::len);
            if ranges > MAX_RANGES {
                return Err(Error::invalid_argument(format!("{whose} {field}: {ranges} ranges")));
            }
        }
    }
    Ok(())
}

/// Checks the arguments and the environment of a process.
///
/// # Errors
/// `InvalidArgument`, naming the field.
pub(super) fn process(process: &Value) -> Result<()> {
    for field in ["args", "env"] {
        let strings = process.get(field).and_then(Value::as_array).into_iter().flatten();
        for (number, text) in strings.filter_map(Value::as_str).enumerate() {
            if text.len() > MAX_ARGUMENT_BYTES {
                let length = text.len();
                return Err(Error::invalid_argument(format!("process.{field}[{number}]: {length} bytes")));
            }
        }
    }
    Ok(())
}

fn texts(value: &Value, at: &mut String) -> Result<()> {
    let length = at.len();
    let (max, left) = match at.as_str() {
        // Each has its own bound, or is only handed on.
        "process.args" | "process.env" | "annotations" => return Ok(()),
        _ => (MAX_TEXT_BYTES, value),
    };
    match left {
        Value::String(text) if text.len() > max => {
            return Err(Error::invalid_argument(format!("{at}: {} bytes", text.len())));
        }
        Value::Array(items) => {
            for item in items {
                texts(item, at)?;
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if name.len() > max {
                    return Err(Error::invalid_argument(format!("a name in {at}: {} bytes", name.len())));
                }
                if length > 0 {
                    at.push('.');
                }
                at.push_str(name);
                texts(field, at)?;
                at.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_16_bits_is_named() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let fits = "x".repeat(MAX_TEXT_BYTES);
        check(
            &json!({"linux": {"cgroupsPath": fits}, "process": {"args": [long]}, "annotations": {"a": long}}),
        )
        .unwrap();
        for (spec, field) in [
            (json!({"linux": {"cgroupsPath": long}}), "linux.cgroupsPath: 65536 bytes"),
            (json!({"linux": {"namespaces": [{"path": long}]}}), "linux.namespaces.path: 65536 bytes"),
            (json!({"linux": {long.as_str(): 1}}), "a name in linux: 65536 bytes"),
            (
                json!({"linux": {"uidMappings": vec![json!({"size": 1}); 341]}}),
                "linux uidMappings: 341 ranges",
            ),
        ] {
            let error = check(&spec).unwrap_err();
            assert_eq!(error.kind(), gantry_core::ErrorKind::InvalidArgument);
            assert!(error.to_string().starts_with(field), "{error}");
        }
        let most = "x".repeat(MAX_ARGUMENT_BYTES);
        process(&json!({"args": ["sh", "-c", most]})).unwrap();
        let error = process(&json!({"args": ["sh"], "env": ["A=b", format!("B{most}")]})).unwrap_err();
        assert!(error.to_string().starts_with("process.env[1]: 131072 bytes"), "{error}");
    }
}
