//! `start`: find the shim that serves a container's group, or make one.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::{Spawn, attributes, socket};
use rustix::fs::FlockOperation;

use crate::address;
use crate::bootstrap::Told;
use crate::bundle::{self, SpecHead};
use crate::command_line::Arguments;

/// Under which number the shim finds its listening socket.
pub const LISTENER: i32 = 3;

/// The highest OOM score. Source: proc(5).
const MAX_OOM_SCORE: i32 = 1000;

/// How a shim's memory is to be kept small: one heap for its few short-lived threads, no stock of freed pieces, and
/// what a start needed for a moment goes back to the system. Source: mallopt(3), the C library's manual on tunables.
const MALLOC: &str = "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0:glibc.malloc.trim_threshold=32768";

/// Gives the address of the shim that serves `arguments.id`, starting one from `program` if there is none yet.
///
/// # Errors
/// `InvalidArgument` if the bundle's `config.json` does not parse; otherwise what could not be made.
pub fn start(program: &Path, arguments: &Arguments, told: &Told) -> Result<String> {
    let bundle = bundle_dir(arguments)?;
    let head = match SpecHead::read(&bundle) {
        // A sandbox may come without a specification of its own.
        Err(error) if error.kind() == ErrorKind::NotFound => SpecHead::default(),
        read => read?,
    };
    let path = if arguments.socket.as_os_str().is_empty() {
        let dir = address::socket_dir(told.socket_dir.as_deref());
        let group = head.group().unwrap_or(&arguments.id);
        address::socket_path(&dir, &told.grpc_address, &arguments.namespace, group)
    } else {
        arguments.socket.clone()
    };
    let dir = path.parent().ok_or_else(|| Error::invalid_argument(format!("socket {path:?}")))?;
    address::make_socket_dir(dir)?;
    // Starts side by side for one group must not both find no shim.
    let _lock = lock(dir)?;
    if let Some(listener) = listen(&path)? {
        let started = spawn(program, arguments, told, &bundle, &path, listener);
        if started.is_err() {
            // Nobody will ever listen there.
            let _ = std::fs::remove_file(&path);
        }
        started?;
    }
    let address = format!("unix://{}", path.display());
    // An old daemon looks here when it starts again.
    let file = bundle.join("address");
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut open| open.write_all(address.as_bytes()))
        .with_context(|| format!("write {file:?}"))?;
    Ok(address)
}

/// The bundle that the command line names, or the working directory.
///
/// # Errors
/// If there is no working directory any more.
pub fn bundle_dir(arguments: &Arguments) -> Result<PathBuf> {
    if arguments.bundle.as_os_str().is_empty() {
        return std::env::current_dir().context("find the working directory");
    }
    std::path::absolute(&arguments.bundle).with_context(|| format!("find {:?}", arguments.bundle))
}

/// Waits for its turn in a directory of sockets; held until dropped.
fn lock(dir: &Path) -> Result<File> {
    let open = File::open(dir).with_context(|| format!("open {dir:?}"))?;
    rustix::fs::flock(&open, FlockOperation::LockExclusive)
        .map_err(std::io::Error::from)
        .with_context(|| format!("lock {dir:?}"))?;
    Ok(open)
}

/// Listens at `path`; `None` if somebody does already. A socket that a dead shim left is replaced.
fn listen(path: &Path) -> Result<Option<UnixListener>> {
    match socket::listen(path, 0o600) {
        Ok(listener) => return Ok(Some(listener)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    match socket::connect(path) {
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) => {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {path:?}"));
                }
                _ => {}
            }
            socket::listen(path, 0o600).map(Some)
        }
        Err(error) => Err(error),
    }
}

fn spawn(
    program: &Path,
    arguments: &Arguments,
    told: &Told,
    bundle: &Path,
    path: &Path,
    listener: UnixListener,
) -> Result<()> {
    let mut shim = Spawn::new(program)
        .arg("-namespace")
        .arg(&arguments.namespace)
        .arg("-id")
        .arg(&arguments.id)
        .arg("-address")
        .arg(&told.grpc_address)
        .arg("-socket")
        .arg(path)
        // The daemon's own line to systemd is nothing for runtimes: runc would announce containers on it.
        .envs(std::env::vars_os().filter(|(name, _)| name != "NOTIFY_SOCKET"))
        .env("TTRPC_ADDRESS", &told.ttrpc_address)
        .env("GLIBC_TUNABLES", MALLOC)
        .cwd(bundle)
        .process_group(0)
        .descriptor(listener, LISTENER);
    if !told.publish_binary.as_os_str().is_empty() {
        shim = shim.arg("-publish-binary").arg(&told.publish_binary);
    }
    if told.debug {
        shim = shim.arg("-debug");
    }
    let options = bundle::options_from_any(told.options.as_ref())?;
    for dir in shim_cgroups(&options.shim_cgroup)? {
        shim = shim.cgroup(dir);
    }
    let child = shim.spawn()?;
    adjust_oom_score(child.pid());
    Ok(())
}

/// The directories of a cgroup that the shim is to be in, one for each hierarchy. Source: features I18.
fn shim_cgroups(cgroup: &str) -> Result<Vec<PathBuf>> {
    if cgroup.is_empty() {
        return Ok(Vec::new());
    }
    let below = Path::new(cgroup.trim_start_matches('/'));
    if !below.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Err(Error::invalid_argument(format!("shim cgroup {cgroup:?}")));
    }
    let root = Path::new(crate::cgroup::ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.join(below)]);
    }
    let entries = std::fs::read_dir(root).with_context(|| format!("read {root:?}"))?;
    let dirs: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path().join(below)).filter(|dir| dir.is_dir()).collect();
    if dirs.is_empty() {
        return Err(Error::not_found(format!("shim cgroup {cgroup:?}")));
    }
    Ok(dirs)
}

/// Makes the shim a little likelier to be killed than the daemon. Source: features I17.
fn adjust_oom_score(pid: i32) {
    let daemon = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let score = attributes::oom_score_adj(daemon).map(|score| (score + 1).min(MAX_OOM_SCORE));
    // A shim that cannot be adjusted still serves; the log is not open yet.
    let _ = score.and_then(|score| attributes::set_oom_score_adj_as_allowed(pid, score));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_shims_socket_is_kept_and_a_dead_ones_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = listen(&path).unwrap().expect("nobody listens yet");
        assert!(listen(&path).unwrap().is_none());
        drop(first);
        assert!(listen(&path).unwrap().is_some());
    }

    #[test]
    fn a_shim_cgroup_cannot_climb() {
        assert!(shim_cgroups("").unwrap().is_empty());
        assert_eq!(shim_cgroups("/a/../../b").unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(
            shim_cgroups("/no/such/cgroup/here").is_err()
                || Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
        );
    }
}
