//! A program that is the runtime itself: `/proc/self/exe`, by whatever name the image gives it (CVE-2019-5736).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use serde_json::Value;

use super::links;
use crate::spec::{list, text};

/// Interpreters of interpreters that are looked at. Source: the kernel's limit for scripts, `fs/exec.c`.
const MAX_INTERPRETERS: usize = 5;

/// How much of a script's first line counts. Source: the kernel's `BINPRM_BUF_SIZE`.
const SCRIPT_HEAD_BYTES: u64 = 256;

/// Where programs are looked for without a `PATH`. Source: what execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Checks the program of `process`, and the interpreters of a script, as the image in `root` has them.
///
/// # Errors
/// `InvalidArgument`, saying what leads where.
pub(super) fn check(root: &Path, process: &Value) -> Result<()> {
    let name = list(process, "/args").first().and_then(Value::as_str).unwrap_or_default();
    let Some(mut program) = find(root, process, name) else { return Ok(()) };
    for _ in 0..MAX_INTERPRETERS {
        let walked = links::walk(root, &program);
        if walked.magic {
            return Err(Error::invalid_argument(format!(
                "process.args[0] {name:?} leads to {:?}, which is no program of the image",
                walked.path
            )));
        }
        match interpreter(root, &walked.path) {
            Some(next) => program = next,
            None => break,
        }
    }
    Ok(())
}

/// The path that `name` means: the first one in `PATH` that is there, or that leads where nothing may.
fn find(root: &Path, process: &Value, name: &str) -> Option<PathBuf> {
    let cwd = Path::new(text(process, "/cwd").unwrap_or("/"));
    if name.contains('/') {
        return Some(cwd.join(name));
    }
    let env = list(process, "/env").iter().rev().filter_map(Value::as_str);
    let path = env.filter_map(|entry| entry.strip_prefix("PATH=")).next().unwrap_or(DEFAULT_PATH);
    let candidates = path.split(':').map(|dir| cwd.join(dir).join(name));
    candidates.into_iter().find(|candidate| {
        let walked = links::walk(root, candidate);
        walked.magic || links::outside(root, &walked.path).is_file()
    })
}

/// The interpreter that a script at `path`, which has no links, names.
fn interpreter(root: &Path, path: &Path) -> Option<PathBuf> {
    // An image may have put a pipe or a device there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(links::outside(root, path), flags, Mode::empty()).ok()?;
    let found = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut head = Vec::new();
    File::from(fd).take(SCRIPT_HEAD_BYTES).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    let named = text.split_ascii_whitespace().next()?;
    Some(Path::new("/").join(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_runtime_itself_is_no_program() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["bin", "usr/bin"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let write =
            |name: &str, text: &str| std::fs::write(root.path().join("bin").join(name), text).unwrap();
        write("sh", "\u{7f}ELF");
        write("fine", "#!/bin/sh -e\nx");
        write("script", "#! /proc/self/exe\n");
        write("second", "#!/bin/script");
        symlink("/proc/self/exe", root.path().join("bin/link")).unwrap();
        symlink("../../bin/link", root.path().join("usr/bin/far")).unwrap();
        let say = |name: &str, env: &[&str]| {
            check(root.path(), &serde_json::json!({"args": [name], "env": env, "cwd": "/bin"}))
        };
        for bad in ["/proc/self/exe", "/proc/1/exe", "./link", "/bin/link", "link", "far", "script", "second"]
        {
            let error = say(bad, &[]).unwrap_err();
            assert!(error.to_string().contains("/proc/"), "{error}");
        }
        for good in ["sh", "/bin/sh", "fine", "./fine", "absent", "/no/such", "/proc/self/status"] {
            say(good, &[]).unwrap();
        }
        // Only what the program's own PATH finds counts.
        say("far", &["PATH=/usr/bin", "PATH=/bin"]).unwrap();
        assert!(say("far", &["PATH=/bin", "PATH=/usr/bin"]).is_err());
    }
}
