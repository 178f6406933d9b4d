//! What the restart labels of a container ask for.

use gantry_core::Labels;
use gantry_core::wire_names::{
    LABEL_RESTART_COUNT, LABEL_RESTART_EXPLICITLY_STOPPED, LABEL_RESTART_POLICY, LABEL_RESTART_STATUS,
};

/// The state that a container's task is to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Desired {
    Running,
    Stopped,
}

impl Desired {
    /// What the label asks for; another text asks for nothing. Source: the original's names of states.
    pub(crate) fn of(labels: &Labels) -> Option<Desired> {
        match labels.get(LABEL_RESTART_STATUS)?.as_str() {
            "running" => Some(Desired::Running),
            "stopped" => Some(Desired::Stopped),
            _ => None,
        }
    }
}

/// When a task that is to run is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    No,
    Always,
    /// If it failed, at most so many times; 0 is without end.
    OnFailure(u32),
    UnlessStopped,
}

impl Policy {
    /// Source: features E45; the original's forms, of which none at all means always.
    ///
    /// # Errors
    /// What is wrong about the text.
    pub(crate) fn parse(text: &str) -> Result<Policy, String> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let policy = match name {
            "no" => Policy::No,
            "" | "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            "on-failure" => {
                let parsed = count.map_or(Ok(0), str::parse);
                let count =
                    parsed.map_err(|_| format!("restart policy {text:?}: the number of retries is none"))?;
                return Ok(Policy::OnFailure(count));
            }
            _ => return Err(format!("restart policy {text:?} is not known")),
        };
        match count {
            None => Ok(policy),
            Some(_) => Err(format!("restart policy {text:?}: only on-failure takes a number of retries")),
        }
    }
}

/// How many times the label says that the container was started again; a text that is no number counts as 0.
pub(crate) fn count(labels: &Labels) -> u32 {
    labels.get(LABEL_RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Whether a container that is to run and does not is to be started, after it ended with `exit_status`.
///
/// # Errors
/// What is wrong about a label.
pub(crate) fn is_due(labels: &Labels, exit_status: u32) -> Result<bool, String> {
    let policy = labels.get(LABEL_RESTART_POLICY).map_or("", String::as_str);
    Ok(match Policy::parse(policy)? {
        Policy::No => false,
        Policy::Always => true,
        Policy::OnFailure(retries) => {
            if let Some(count) = labels.get(LABEL_RESTART_COUNT).filter(|count| !count.is_empty())
                && count.parse::<u32>().is_err()
            {
                return Err(format!("label {LABEL_RESTART_COUNT} {count:?} is no number"));
            }
            exit_status != 0 && (retries == 0 || count(labels) < retries)
        }
        Policy::UnlessStopped => !is_true(labels.get(LABEL_RESTART_EXPLICITLY_STOPPED)),
    })
}

/// Source: Go's `strconv.ParseBool`.
fn is_true(text: Option<&String>) -> bool {
    text.is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let full =
            |(key, value): &(&str, &str)| (format!("containerd.io/restart.{key}"), (*value).to_owned());
        pairs.iter().map(full).collect()
    }

    #[test]
    fn policies_are_read_as_the_original_does() {
        for (text, policy) in [
            ("", Policy::Always),
            ("always", Policy::Always),
            ("no", Policy::No),
            ("unless-stopped", Policy::UnlessStopped),
            ("on-failure", Policy::OnFailure(0)),
            ("on-failure:3", Policy::OnFailure(3)),
        ] {
            assert_eq!(Policy::parse(text).unwrap(), policy, "{text}");
        }
        for text in
            ["never", "always:1", "no:", "on-failure:", "on-failure:x", "on-failure:-1", "on-failure:1:2"]
        {
            Policy::parse(text).expect_err(text);
        }
    }

    #[test]
    fn a_failure_is_retried_so_many_times() {
        let with = |count| labels(&[("policy", "on-failure:2"), ("count", count)]);
        assert!(is_due(&with(""), 1).unwrap() && is_due(&with("1"), 137).unwrap());
        assert!(!is_due(&with("2"), 1).unwrap() && !is_due(&with("0"), 0).unwrap());
        assert!(is_due(&with("x"), 1).is_err());
        assert!(is_due(&labels(&[("policy", "on-failure"), ("count", "900")]), 1).unwrap());
    }

    #[test]
    fn what_was_stopped_explicitly_stays_so() {
        let with = |stopped| labels(&[("policy", "unless-stopped"), ("explicitly-stopped", stopped)]);
        assert!(!is_due(&with("true"), 0).unwrap() && !is_due(&with("1"), 0).unwrap());
        assert!(is_due(&with("false"), 0).unwrap() && is_due(&with("what"), 0).unwrap());
        assert!(is_due(&labels(&[]), 0).unwrap() && !is_due(&labels(&[("policy", "no")]), 1).unwrap());
    }
}
