//! Limits that this process may not grant, because it lacks CAP_SYS_RESOURCE: lowered to what it may.
//!
//! Runtimes die on these with texts that name everything but the reason.

use gantry_sys::attributes;
use rustix::process::{Resource, getrlimit};
use serde_json::Value;

/// Source: the OCI runtime specification, `process.rlimits`; getrlimit(2).
pub(crate) const RESOURCES: &[(&str, Resource)] = &[
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// What this process may grant.
pub(crate) struct Allowed {
    /// Nothing is out of reach.
    all: bool,
    oom_score_adj: i64,
    hard: fn(Resource) -> Option<u64>,
}

impl Allowed {
    /// Asks the kernel.
    pub(crate) fn now() -> Allowed {
        Allowed {
            all: attributes::may_raise_limits(),
            oom_score_adj: attributes::oom_score_adj(rustix::process::getpid().as_raw_pid())
                .unwrap_or(0)
                .into(),
            hard: |resource| getrlimit(resource).maximum,
        }
    }

    /// Lowers what `process` asks for to what may be granted, and says what was lowered.
    pub(crate) fn cap(&self, process: &mut Value) -> Vec<String> {
        let mut said = Vec::new();
        if self.all {
            return said;
        }
        if let Some(score) = process.get("oomScoreAdj").and_then(Value::as_i64)
            && score < self.oom_score_adj
        {
            process["oomScoreAdj"] = self.oom_score_adj.into();
            said.push(format!("oom_score_adj {score} became {}", self.oom_score_adj));
        }
        let Some(limits) = process.get_mut("rlimits").and_then(Value::as_array_mut) else { return said };
        for limit in limits {
            let Some(kind) = limit.get("type").and_then(Value::as_str) else { continue };
            let Some((name, resource)) = RESOURCES.iter().find(|(name, _)| *name == kind) else { continue };
            let Some(allowed) = (self.hard)(*resource) else { continue };
            for field in ["hard", "soft"] {
                if let Some(asked) = limit.get(field).and_then(Value::as_u64)
                    && asked > allowed
                {
                    limit[field] = allowed.into();
                    said.push(format!("{field} {name} {asked} became {allowed}"));
                }
            }
        }
        said
    }
}

/// Lowers what `process` asks for to what may be granted, and logs it.
pub(crate) fn cap(process: &mut Value) {
    let said = Allowed::now().cap(process);
    if !said.is_empty() {
        tracing::warn!(lowered = %said.join(", "), "CAP_SYS_RESOURCE is missing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_not_be_granted_is_lowered_and_said() {
        let asked = json!({"oomScoreAdj": -998, "rlimits": [
            {"type": "RLIMIT_NOFILE", "hard": 1_048_576, "soft": 1024},
            {"type": "RLIMIT_CORE", "hard": 10, "soft": 5},
        ]});
        let mut process = asked.clone();
        let allowed = Allowed { all: false, oom_score_adj: 0, hard: |_| Some(20_000) };
        let said = allowed.cap(&mut process);
        assert_eq!(process["oomScoreAdj"], 0);
        assert_eq!(process["rlimits"][0], json!({"type": "RLIMIT_NOFILE", "hard": 20_000, "soft": 1024}));
        assert_eq!(process["rlimits"][1], asked["rlimits"][1]);
        assert_eq!(said, ["oom_score_adj -998 became 0", "hard RLIMIT_NOFILE 1048576 became 20000"]);
        let mut process = asked.clone();
        assert!(Allowed { all: true, ..allowed }.cap(&mut process).is_empty());
        assert_eq!(process, asked);
    }
}
