//! This program as a helper: what it was asked for, and the state of the process before it does that.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::{attributes, socket};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::report::{ErrorLog, Message, Report};
use super::{create, exec};

/// The first argument that makes this program a helper of the built-in runtime.
pub const HELPER_ARGUMENT: &str = "oci-runtime-helper";

/// The descriptors that a helper is given: where it reports, what it is asked for, and init for an exec.
pub(super) const REPORT: i32 = 3;
pub(super) const REQUEST: i32 = 4;
pub(super) const INIT: i32 = 5;

/// The most that is read of a request.
const MAX_REQUEST_BYTES: u64 = 32 << 20;

/// What a helper is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// Make a container.
    Create(Create),
    /// Enter a container and become a program.
    Exec(Exec),
    /// Run hooks.
    Hooks(Hooks),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Create {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// The process's working directory, as the specification has it.
    pub(super) cwd: String,
    pub(super) state_dir: PathBuf,
    pub(super) console_socket: Option<PathBuf>,
    pub(super) systemd_cgroup: bool,
    pub(super) no_pivot_root: bool,
    pub(super) no_new_keyring: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Exec {
    pub(super) id: String,
    pub(super) process: Value,
    pub(super) seccomp: Option<Value>,
    /// The container has a user namespace, which is to be entered too.
    pub(super) user_namespace: bool,
    /// Who its user is outside, if anybody knows.
    pub(super) owner: Option<u32>,
    pub(super) terminal: bool,
    pub(super) no_new_keyring: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hooks {
    /// The container's directory.
    pub(super) dir: PathBuf,
    /// `poststart` or `poststop`.
    pub(super) which: String,
}

/// Does a helper's work if this process was started to be one, and returns its exit code. To be
/// called first in `main`, before any thread exists.
pub fn run_if_asked() -> Option<i32> {
    if std::env::args_os().nth(1)? != HELPER_ARGUMENT {
        return None;
    }
    // Started by hand, or by a container that executes `/proc/self/exe`: there is nobody to report to.
    let Ok(report) = socket::inherited(REPORT).map(Report::new) else { return Some(125) };
    match run(&report) {
        Ok(pid) => {
            report.send(&Message::Done(pid));
            Some(0)
        }
        Err(error) => {
            report.fail(&error);
            Some(1)
        }
    }
}

fn run(report: &Report) -> Result<i32> {
    // Before anything else is read: nobody of the container may look into this process.
    attributes::set_dumpable(false).context("become non-dumpable")?;
    let request = read_request()?;
    calm()?;
    match request {
        Request::Create(create) => {
            hear_errors(report, &create.cwd)?;
            create::run(&create, report)
        }
        Request::Exec(exec) => exec::run(&exec, report),
        Request::Hooks(hooks) => create::hooks(&hooks).map(|()| 0),
    }
}

fn read_request() -> Result<Request> {
    let mut bytes = Vec::new();
    let file = File::from(socket::inherited(REQUEST)?);
    file.take(MAX_REQUEST_BYTES).read_to_end(&mut bytes).context("read the request")?;
    serde_json::from_slice(&bytes).map_err(|error| Error::internal(format!("request to the helper: {error}")))
}

/// Leaves nothing to the container that the caller happens to have.
fn calm() -> Result<()> {
    attributes::default_broken_pipe();
    // Source: runc's default.
    attributes::set_umask(0o022);
    rustix::thread::clear_ambient_capability_set()
        .map_err(std::io::Error::from)
        .context("clear ambient capabilities")?;
    let now =
        rustix::thread::capabilities(None).map_err(std::io::Error::from).context("read capabilities")?;
    let sets = CapabilitySets { inheritable: CapabilitySet::empty(), ..now };
    rustix::thread::set_capabilities(None, sets)
        .map_err(std::io::Error::from)
        .context("clear capabilities")?;
    // Without CAP_SETGID they are not ours to give up.
    match rustix::thread::set_thread_groups(&[]) {
        Err(error) if error != rustix::io::Errno::PERM => Err(Error::io(error.into()).context("drop groups")),
        _ => Ok(()),
    }
}

fn hear_errors(report: &Report, cwd: &str) -> Result<()> {
    let fd = report.duplicate().context("duplicate a descriptor")?;
    let log = ErrorLog { fd, cwd: cwd.to_owned() };
    // This process does nothing else.
    let _ = tracing::subscriber::set_global_default(log);
    Ok(())
}

/// Gives the container a session keyring of its own, unless its owner does not want one or the kernel has none.
pub(super) fn keyring(id: &str, unwanted: bool) -> Result<()> {
    if unwanted {
        return Ok(());
    }
    // Source: runc's name for it, which an exec joins by.
    match attributes::new_session_keyring(&format!("_ses.{id}")) {
        // A quota that is used up, or a kernel without keyrings: runc goes on too.
        Err(error) if error.kind() == gantry_core::ErrorKind::InvalidArgument => Err(error),
        _ => Ok(()),
    }
}

/// Gives the standard streams to the container's user, who may want to open `/dev/stdout`.
pub(super) fn own_streams(uid: u32) {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let Ok(found) = rustix::fs::fstat(stream) else { continue };
        // Never the machine's own: /dev/null belongs to everybody.
        let is_null = found.st_rdev == rustix::fs::makedev(1, 3);
        if found.st_uid != uid && !is_null {
            // Read-only or foreign file systems refuse; the streams work without.
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}
