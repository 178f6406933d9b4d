//! The program of a process: where it is, its environment, and becoming it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use gantry_core::{Error, ErrorKind, Result};
use rustix::fs::Access;

/// The most that is read of a container's `/etc/passwd`, which is its image's.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// Where programs are looked for without a `PATH`. Source: what execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that `name` means to a process with this environment, checked with the rights that this process has now.
///
/// # Errors
/// With the words that clients look for. Source: Go's `exec.LookPath`, as runc passes it on.
pub(super) fn find(name: &str, env: &[String]) -> Result<PathBuf> {
    let refuse = |what: &str| Err(Error::new(ErrorKind::Unknown, format!("exec: {name:?}: {what}")));
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => refuse("permission denied"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                refuse(&format!("stat {name}: no such file or directory"))
            }
            Err(error) => refuse(&format!("stat {name}: {error}")),
            Ok(found) if found.is_dir() => refuse("is a directory"),
            Ok(_) if !is_executable(&path) => refuse("permission denied"),
            Ok(_) => Ok(path),
        };
    }
    let dirs = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for dir in dirs.split(':') {
        // An empty entry means the current directory.
        let path = if dir.is_empty() { Path::new(".").join(name) } else { Path::new(dir).join(name) };
        if path.is_file() {
            if is_executable(&path) {
                return Ok(path);
            }
            denied = true;
        }
    }
    refuse(if denied { "permission denied" } else { "executable file not found in $PATH" })
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// The environment as the specification has it, with a `HOME`.
pub(super) fn environment(env: &[String], uid: u32) -> Vec<String> {
    let mut all: Vec<String> = env.iter().filter(|entry| entry.contains('=')).cloned().collect();
    if !all.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        all.retain(|entry| !entry.starts_with("HOME="));
        all.push(format!("HOME={}", home(uid)));
    }
    all
}

fn home(uid: u32) -> String {
    let mut text = Vec::new();
    let path = Path::new("/etc/passwd");
    // An image may have put a pipe or a device there.
    let is_file = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    if is_file && let Ok(file) = File::open(path) {
        // What was read so far is good enough.
        let _ = file.take(MAX_PASSWD_BYTES).read_to_end(&mut text);
    }
    home_in(&String::from_utf8_lossy(&text), uid)
}

/// Source: passwd(5).
fn home_in(passwd: &str, uid: u32) -> String {
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = entry.filter(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    let home = found.next().and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
    home.filter(|home| home.starts_with('/')).unwrap_or_else(|| "/".to_owned())
}

/// Becomes the program.
///
/// # Errors
/// What the kernel said.
pub(super) fn become_it(path: &Path, args: &[String], env: &[String]) -> Result<Infallible> {
    use std::os::unix::ffi::OsStrExt;
    let c_string =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::invalid_argument("a zero byte in a string"));
    let file = c_string(path.as_os_str().as_bytes())?;
    let args = args.iter().map(|arg| c_string(arg.as_bytes())).collect::<Result<Vec<_>>>()?;
    let env = env.iter().map(|entry| c_string(entry.as_bytes())).collect::<Result<Vec<_>>>()?;
    nix::unistd::execve(&file, &args, &env).map_err(|errno| {
        let error = std::io::Error::from_raw_os_error(errno as i32);
        Error::new(ErrorKind::Unknown, format!("exec {path:?}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_said_in_known_words() {
        let say = |name: &str, env: &[String]| find(name, env).unwrap_err().to_string();
        let env = ["PATH=/no/such:/bin".to_owned()];
        assert_eq!(find("sh", &env).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("sh", &[]).unwrap(), Path::new("/bin/sh"));
        assert_eq!(say("nosuch", &env), "exec: \"nosuch\": executable file not found in $PATH");
        assert_eq!(say("/no/such", &env), "exec: \"/no/such\": stat /no/such: no such file or directory");
        assert_eq!(say("/bin/", &env), "exec: \"/bin/\": is a directory");
        assert_eq!(say("/etc/passwd", &env), "exec: \"/etc/passwd\": permission denied");
    }

    #[test]
    fn home_comes_from_the_image_unless_it_was_given() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbad\nu:x:7:7::/home/u:/bin/sh\nr:x:8:8::rel:/bin/sh";
        assert_eq!((home_in(passwd, 0).as_str(), home_in(passwd, 7).as_str()), ("/root", "/home/u"));
        assert_eq!((home_in(passwd, 8).as_str(), home_in("", 0).as_str()), ("/", "/"));
        let env = environment(&["A=b=c".to_owned(), "HOME=/x".to_owned(), "broken".to_owned()], 0);
        assert_eq!(env, ["A=b=c", "HOME=/x"]);
        assert!(environment(&["HOME=".to_owned()], 0).iter().any(|entry| entry.len() > 5));
    }
}
