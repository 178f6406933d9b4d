//! Entering a container and becoming a program in it.
//!
//! ```text
//! born in the container's pid namespace and cgroups ─► limits ─► namespaces ─► terminal ─► directory ─► user
//!     ─► bounding set ─► seccomp, if it needs rights ─► capabilities ─► seccomp, if not ─► the program
//! ```
//!
//! Ours and not `libcontainer`'s, whose execs run without the container's seccomp filter.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::pty::Pty;
use gantry_sys::socket;
use libcontainer::oci_spec::runtime::LinuxSeccomp;
use rustix::fs::{Gid, Uid};
use rustix::process::Rlimit;
use rustix::thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType};
use serde::Deserialize;

use super::helper::{self, Exec, INIT};
use super::program;
use super::report::{Message, Report};
use crate::limits::RESOURCES;

/// Source: `DEVPTS_SUPER_MAGIC` of the kernel's `linux/magic.h`.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The capabilities in the order of their numbers. Source: the kernel's `linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Source: the OCI runtime specification, `process`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    #[serde(default)]
    user: User,
    args: Vec<String>,
    #[serde(default)]
    env: Option<Vec<String>>,
    cwd: String,
    #[serde(default)]
    capabilities: Sets,
    #[serde(default)]
    rlimits: Option<Vec<Limit>>,
    #[serde(default)]
    no_new_privileges: bool,
    #[serde(default)]
    apparmor_profile: Option<String>,
    #[serde(default)]
    oom_score_adj: Option<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct User {
    uid: u32,
    gid: u32,
    umask: Option<u32>,
    additional_gids: Option<Vec<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sets {
    bounding: Vec<String>,
    effective: Vec<String>,
    permitted: Vec<String>,
    inheritable: Vec<String>,
    ambient: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Limit {
    #[serde(rename = "type")]
    kind: String,
    hard: u64,
    soft: u64,
}

/// Does it all; returns only if it fails.
pub(super) fn run(exec: &Exec, report: &Report) -> Result<i32> {
    match enter(exec, report) {
        Ok(never) => match never {},
        Err(error) => Err(error),
    }
}

fn io_error(errno: rustix::io::Errno) -> io::Error {
    io::Error::from(errno)
}

fn enter(exec: &Exec, report: &Report) -> Result<Infallible> {
    let process: Process = serde_json::from_value(exec.process.clone())
        .map_err(|error| Error::invalid_argument(format!("process: {error}")))?;
    let seccomp: Option<LinuxSeccomp> = exec
        .seccomp
        .clone()
        .map(serde_json::from_value)
        .transpose()
        .map_err(|error| Error::invalid_argument(format!("seccomp: {error}")))?;
    let init = socket::inherited(INIT)?;
    helper::keyring(&exec.id, exec.no_new_keyring)?;
    // With the machine's own /proc, before the container's is the one in sight.
    let profile = apparmor(process.apparmor_profile.as_deref())?;
    if let Some(score) = process.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).context("set oom_score_adj")?;
    }
    limits(process.rlimits.as_deref().unwrap_or_default())?;
    if let Some(owner) = exec.owner.filter(|_| !exec.terminal) {
        helper::own_streams(owner);
    }
    let mut kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    if exec.user_namespace {
        kinds |= ThreadNameSpaceType::USER;
    }
    rustix::thread::move_into_thread_name_spaces(init.as_fd(), kinds)
        .map_err(io_error)
        .context("enter the container's namespaces")?;
    drop(init);
    if exec.user_namespace {
        // What is opened in there has to belong to somebody whom it knows.
        become_user(&[], Uid::ROOT, Gid::ROOT).map_err(io_error).context("become root of the container")?;
        gantry_sys::attributes::set_dumpable(false).context("stay non-dumpable")?;
    }
    rustix::process::setsid().map_err(io_error).context("start a session")?;
    if exec.terminal {
        terminal(report)?;
        helper::own_streams(process.user.uid);
    }
    let late = directory(&process.cwd, true)?;
    gantry_sys::attributes::set_umask(process.user.umask.unwrap_or(0o022) & 0o777);
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(io_error).context("set no_new_privs")?;
    }
    user(&process.user)?;
    // The kernel decides by fs.suid_dumpable what another user's process is (CVE-2016-9962).
    gantry_sys::attributes::set_dumpable(false).context("stay non-dumpable")?;
    if late {
        directory(&process.cwd, false)?;
    }
    verify_directory()?;
    let env = program::environment(process.env.as_deref().unwrap_or_default(), process.user.uid);
    let name = process.args.first().ok_or_else(|| Error::invalid_argument("process.args is empty"))?;
    let path = program::find(name, &env)?;
    let sets = parse(&process.capabilities)?;
    bound(sets.bounding)?;
    if let Some((mut file, line)) = profile {
        file.write_all(line.as_bytes()).context("set the AppArmor profile")?;
    }
    // From here on the filter may forbid to say more; an end without this is a failure.
    report.send(&Message::Done(0));
    if !process.no_new_privileges {
        load(seccomp.as_ref())?;
    }
    drop_to(&sets)?;
    if process.no_new_privileges {
        load(seccomp.as_ref())?;
    }
    program::become_it(&path, &process.args, &env)
}

fn apparmor(profile: Option<&str>) -> Result<Option<(File, String)>> {
    let Some(profile) = profile.filter(|profile| !profile.is_empty()) else { return Ok(None) };
    let open = |path: &str| File::options().write(true).open(path);
    let file = open("/proc/self/attr/apparmor/exec").or_else(|_| open("/proc/self/attr/exec"));
    let file = file.with_context(|| format!("AppArmor profile {profile:?}"))?;
    Ok(Some((file, format!("exec {profile}"))))
}

fn limits(limits: &[Limit]) -> Result<()> {
    for limit in limits {
        let found = RESOURCES.iter().find(|(name, _)| *name == limit.kind);
        let (_, resource) =
            found.ok_or_else(|| Error::invalid_argument(format!("rlimit {:?}", limit.kind)))?;
        let value = |number: u64| (number != u64::MAX).then_some(number);
        let new = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
        rustix::process::setrlimit(*resource, new)
            .map_err(io_error)
            .with_context(|| format!("set {}", limit.kind))?;
    }
    Ok(())
}

/// Makes a terminal in the container's own file system of terminals, and sends its master.
fn terminal(report: &Report) -> Result<()> {
    let pty = Pty::open()?;
    // The container decides what its /dev/ptmx is (CVE-2025-52565).
    for side in [&pty.master, &pty.slave] {
        let kind = rustix::fs::fstatfs(side).map_err(io_error).context("look at the terminal")?;
        if kind.f_type != DEVPTS_MAGIC {
            return Err(Error::failed_precondition("/dev/ptmx of the container is no terminal"));
        }
    }
    report.console(&pty.master).context("send the terminal")?;
    drop(pty.master);
    rustix::process::ioctl_tiocsctty(&pty.slave)
        .map_err(io_error)
        .context("take the controlling terminal")?;
    streams(&pty.slave).map_err(io_error).context("set the standard streams")
}

fn streams(slave: &OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    rustix::stdio::dup2_stderr(slave)
}

/// Enters the working directory. `true` if only its user may, who this process is not yet.
fn directory(cwd: &str, may_wait: bool) -> Result<bool> {
    match rustix::process::chdir(cwd) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) if may_wait => Ok(true),
        Err(error) => {
            let error = Error::with_source(ErrorKind::Unknown, io_error(error));
            Err(error.context(format!("chdir to cwd ({cwd:?})")))
        }
    }
}

/// That the directory is one of the container's (CVE-2024-21626).
fn verify_directory() -> Result<()> {
    let at =
        rustix::process::getcwd(Vec::new()).map_err(io_error).context("look at the working directory")?;
    if at.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Error::invalid_argument("the working directory is outside the container"))
    }
}

/// Becomes the user, and keeps what is permitted for the steps that follow.
fn user(user: &User) -> Result<()> {
    let groups: Vec<Gid> = user.additional_gids.iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    if [user.uid, user.gid].contains(&u32::MAX)
        || user.additional_gids.iter().flatten().any(|gid| *gid == u32::MAX)
    {
        return Err(Error::invalid_argument("a user or group of 4294967295"));
    }
    become_user(&groups, Uid::from_raw(user.uid), Gid::from_raw(user.gid))
        .map_err(io_error)
        .with_context(|| format!("become user {}:{}", user.uid, user.gid))
}

fn become_user(groups: &[Gid], uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_groups(groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_keep_capabilities(false)?;
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })
}

struct Parsed {
    bounding: CapabilitySet,
    sets: CapabilitySets,
    ambient: CapabilitySet,
}

fn parse(sets: &Sets) -> Result<Parsed> {
    let set = |names: &[String]| {
        names.iter().try_fold(CapabilitySet::empty(), |set, name| {
            let plain = name.strip_prefix("CAP_").unwrap_or(name);
            let number = CAPABILITIES.iter().position(|known| *known == plain);
            let number = number.ok_or_else(|| Error::invalid_argument(format!("capability {name:?}")))?;
            Ok::<_, Error>(set | CapabilitySet::from_bits_retain(1 << number))
        })
    };
    Ok(Parsed {
        bounding: set(&sets.bounding)?,
        sets: CapabilitySets {
            effective: set(&sets.effective)?,
            permitted: set(&sets.permitted)?,
            inheritable: set(&sets.inheritable)?,
        },
        ambient: set(&sets.ambient)?,
    })
}

/// Gives up all but `bounding`, whatever number the kernel's last capability has.
fn bound(bounding: CapabilitySet) -> Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if bounding.contains(one) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(one)
                .map_err(io_error)
                .context("drop capabilities from the bounding set")?,
            Ok(false) => {}
            // The kernel has no more.
            Err(_) => break,
        }
    }
    Ok(())
}

fn drop_to(parsed: &Parsed) -> Result<()> {
    rustix::thread::set_capabilities(None, parsed.sets).map_err(io_error).context("drop capabilities")?;
    for number in 0..CAPABILITIES.len() {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // One that is not also permitted and inheritable is refused; runc only warns.
        if parsed.ambient.contains(one)
            && parsed.sets.permitted.contains(one)
            && parsed.sets.inheritable.contains(one)
        {
            rustix::thread::configure_capability_in_ambient_set(one, true)
                .map_err(io_error)
                .context("raise ambient capabilities")?;
        }
    }
    Ok(())
}

fn load(seccomp: Option<&LinuxSeccomp>) -> Result<()> {
    let Some(seccomp) = seccomp else { return Ok(()) };
    match libcontainer::seccomp::initialize_seccomp(seccomp) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::unknown(error.to_string()).context("load the seccomp filter")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_by_name() {
        let sets = Sets { bounding: vec!["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()], ..Sets::default() };
        let parsed = parse(&sets).unwrap();
        assert_eq!(parsed.bounding, CapabilitySet::CHOWN | CapabilitySet::SYS_ADMIN);
        assert!(parsed.sets.inheritable.is_empty());
        assert!(parse(&Sets { effective: vec!["CAP_NOSUCH".into()], ..Sets::default() }).is_err());
        let last = 1 << (CAPABILITIES.len() - 1);
        assert_eq!(CapabilitySet::CHECKPOINT_RESTORE.bits(), last);
    }
}
