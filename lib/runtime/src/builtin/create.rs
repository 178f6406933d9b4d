//! Making a container, in a process of its own.

use std::error::Error as StdError;
use std::path::Path;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use libcontainer::config::YoukiConfig;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sched::CloneFlags;
use rustix::mount::MountPropagationFlags;

use super::cgroup;
use super::executor::Payload;
use super::helper::{self, Create, Hooks};
use super::normalise;
use super::record::{self, Record};
use super::report::Report;
use crate::spec::{Spec, list};

/// Makes the container and returns the pid of its init.
pub(super) fn run(create: &Create, report: &Report) -> Result<i32> {
    let spec = Spec::read(&create.bundle)?;
    let dir = create.state_dir.join(&create.id);
    if dir.exists() {
        return Err(Error::already_exists(format!("container {:?}", create.id)));
    }
    helper::keyring(&create.id, create.no_new_keyring)?;
    let uid = spec.root.pointer("/process/user/uid").and_then(serde_json::Value::as_u64).unwrap_or(0);
    helper::own_streams(u32::try_from(uid).map_err(|_| Error::invalid_argument(format!("uid {uid}")))?);
    // Hooks of the runtime's own namespaces may mount something for all to see.
    let hooks = ["/hooks/prestart", "/hooks/createRuntime"].iter().any(|at| !list(&spec.root, at).is_empty());
    if !hooks && !normalise::wants_slave(&spec.root) {
        leave_propagation()?;
    }
    let made = build(create, report).and_then(|container| {
        let pid = container.pid().ok_or_else(|| Error::internal("a container without init"))?.as_raw();
        // Found again by whoever deletes it, even if the rest fails.
        keep(&spec, create, &dir, pid)?;
        Ok(pid)
    });
    if made.is_err() {
        // The caller, who can wait for processes, removes what else is left.
        let _ = std::fs::remove_dir_all(&dir);
    }
    made
}

fn keep(spec: &Spec, create: &Create, dir: &Path, pid: i32) -> Result<()> {
    let stat = record::stat(pid).ok_or_else(|| Error::unknown("init ended while it was made"))?;
    let has = |hook: &str| !list(&spec.root, hook).is_empty();
    let record = Record {
        pid,
        start_time: stat.start_time,
        bundle: create.bundle.clone(),
        groups: cgroup::of(pid)?,
        poststart: has("/hooks/poststart"),
        poststop: has("/hooks/poststop"),
    };
    record.write(dir)
}

/// Cuts this process off from what is mounted elsewhere: `libcontainer` ignores that a mount is to be private, but what
/// is made from private mounts is private.
fn leave_propagation() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .map_err(std::io::Error::from)
        .context("create a mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(std::io::Error::from)
        .context("make mounts private")
}

fn build(create: &Create, report: &Report) -> Result<Container> {
    let builder = ContainerBuilder::new(create.id.clone(), SyscallType::Linux)
        .with_executor(Payload::new(report.clone()))
        .with_console_socket(create.console_socket.clone())
        .with_root_path(&create.state_dir)
        .and_then(ContainerBuilder::validate_id);
    let init = builder.map_err(|error| explain(&error))?.as_init(&create.bundle);
    let init = init.with_systemd(create.systemd_cgroup).with_no_pivot(create.no_pivot_root).with_detach(true);
    init.build().map_err(|error| explain(&error))
}

/// Runs a container's hooks of one kind.
pub(super) fn hooks(hooks: &Hooks) -> Result<()> {
    let container = Container::load(hooks.dir.clone()).map_err(|error| explain(&error))?;
    let config = YoukiConfig::load(&hooks.dir).map_err(|error| explain(&error))?;
    let Some(all) = &config.hooks else { return Ok(()) };
    let list = match hooks.which.as_str() {
        "poststart" => all.poststart(),
        "poststop" => all.poststop(),
        other => return Err(Error::internal(format!("hooks {other:?}"))),
    };
    libcontainer::hooks::run_hooks(list.as_ref(), Some(&container.state), None, None, None)
        .map_err(|error| explain(&error).context(format!("{} hooks", hooks.which)))
}

/// The whole chain of an error, each step once.
fn explain(error: &(dyn StdError + 'static)) -> Error {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(step) = next {
        let said = step.to_string();
        if !text.ends_with(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        next = step.source();
    }
    Error::new(ErrorKind::Unknown, text)
}
