//! Which devices a container may use.

use serde_json::{Value, json};

use crate::spec::text;

/// Makes the rules of `linux` begin with a denial of all devices: what is allowed is then allowed, and nothing else
/// (GHSA-g54h-m393-cpwq). runc assumes as much; `libcontainer`, and crun on cgroup v2, take silence for consent.
pub(crate) fn deny_unless_allowed(linux: &mut Value) {
    if !linux["resources"].is_object() {
        linux["resources"] = json!({});
    }
    let rules = &mut linux["resources"]["devices"];
    if !rules.is_array() {
        *rules = json!([]);
    }
    let Some(rules) = rules.as_array_mut() else { return };
    let all = |rule: &Value| {
        matches!(text(rule, "/type"), None | Some("" | "a"))
            && rule.get("allow") != Some(&Value::Bool(true))
            && text(rule, "/access").is_none_or(|access| access.is_empty() || access == "rwm")
    };
    if !rules.first().is_some_and(all) {
        rules.insert(0, json!({"allow": false, "access": "rwm"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_stands_behind_a_denial() {
        for (rules, count) in [
            (json!([{"allow": true, "type": "a", "access": "rwm"}]), 2),
            (json!([{"allow": false, "type": "c", "access": "rwm"}]), 2),
            (json!([{"allow": false, "access": "r"}]), 2),
            (json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c"}]), 2),
        ] {
            let mut linux = json!({"resources": {"devices": rules}});
            deny_unless_allowed(&mut linux);
            let rules = linux["resources"]["devices"].as_array().unwrap();
            assert_eq!(rules.len(), count);
            assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
        }
    }
}
