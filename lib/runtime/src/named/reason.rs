//! What a runtime gives as its reason, and what that means.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use gantry_core::ErrorKind;
use serde::Deserialize;

/// How much of a log's end is looked at. Its last error is what counts.
const MAX_LOG_BYTES: u64 = 256 << 10;

/// How long a reason may become.
const MAX_TEXT_CHARS: usize = 4096;

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// The last error in a runtime's JSON log.
pub(super) fn last_error(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let is_error = |line: &Line| ["error", "fatal", "panic"].contains(&line.level.to_lowercase().as_str());
    lines.rev().find(is_error).map(|line| shorten(line.msg.trim()))
}

/// The last line of a text that says anything.
pub(super) fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(shorten)
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// The kind of an error that a runtime worded, and the words with what they leave out.
///
/// Source: texts of runc 1.1.5, crun 1.8.1; containerd's mapping of them.
pub(super) fn explain(verb: &str, text: String) -> (ErrorKind, String) {
    let lower = text.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if verb == "kill" && says(&["process already finished", "container not running", "no such process"]) {
        return (ErrorKind::NotFound, "process already finished".to_owned());
    }
    // The second is crun's: it looks for the container's state file.
    if says(&["container does not exist", "container with id", "does not exist"])
        && !says(&["already exists"])
        || verb != "create"
            && verb != "exec"
            && says(&["no such file or directory"])
            && says(&["status", "state.json"])
    {
        return (ErrorKind::NotFound, if verb == "kill" { "no such container".to_owned() } else { text });
    }
    if verb == "create" && says(&["already exists"]) {
        return (ErrorKind::AlreadyExists, text);
    }
    if verb == "delete" && says(&["is not stopped", "cannot delete container"]) {
        return (ErrorKind::FailedPrecondition, text);
    }
    // runc's first process dies when a limit is refused, and its parent only sees that nobody answers.
    if says(&["can't get final child's pid"]) && !gantry_sys::attributes::may_raise_limits() {
        let text = format!(
            "{text} (probably a resource limit or OOM score that needs CAP_SYS_RESOURCE, which is missing)"
        );
        return (ErrorKind::Unknown, text);
    }
    (ErrorKind::Unknown, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        assert_eq!(last_error(&log), None);
        let text = r#"{"level":"warning","msg":"signal: killed","time":"x"}
{"level":"error","msg":"first","time":"x"}
not json
{"level":"error","msg":"runc create failed: exec: \"nosuch\": executable file not found in $PATH","time":"x"}
{"level":"debug","msg":"bye","time":"x"}
{"level":"err"#;
        std::fs::write(&log, text).unwrap();
        let said = last_error(&log).unwrap();
        assert_eq!(said, "runc create failed: exec: \"nosuch\": executable file not found in $PATH");
        std::fs::write(&log, "x".repeat(3 << 20)).unwrap();
        assert_eq!(last_error(&log), None);
    }

    #[test]
    fn texts_become_kinds() {
        let kind = |verb, text: &str| explain(verb, text.to_owned()).0;
        assert_eq!(kind("state", "container does not exist"), ErrorKind::NotFound);
        assert_eq!(kind("kill", "container not running"), ErrorKind::NotFound);
        assert_eq!(explain("kill", "container not running".into()).1, "process already finished");
        assert_eq!(kind("create", "container with given ID already exists"), ErrorKind::AlreadyExists);
        assert_eq!(
            kind("delete", "cannot delete container web that is not stopped: running"),
            ErrorKind::FailedPrecondition
        );
        assert_eq!(kind("create", "exec: \"/x\": stat /x: no such file or directory"), ErrorKind::Unknown);
    }
}
