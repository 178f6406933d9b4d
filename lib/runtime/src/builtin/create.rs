//! Making a container, in a process of its own.

use std::error::Error as StdError;
use std::path::Path;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use libcontainer::config::YoukiConfig;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::init_builder::InitContainerBuilder;
use libcontainer::container::{Container, ContainerStatus, State};
use libcontainer::syscall::syscall::SyscallType;
use nix::sched::CloneFlags;
use rustix::mount::MountPropagationFlags;
use serde_json::{Value, json};

use super::cgroup;
use super::executor::Payload;
use super::helper::{self, Create, Hooks};
use super::record::{self, Record};
use super::report::Report;
use super::{normalise, users};
use crate::spec::{Spec, list, text};

/// Makes the container and returns the pid of its init.
pub(super) fn run(create: &Create, report: &Report) -> Result<i32> {
    let mut spec = Spec::read(&create.bundle)?;
    let dir = create.state_dir.join(&create.id);
    if dir.exists() {
        return Err(Error::already_exists(format!("container {:?}", create.id)));
    }
    helper::keyring(&create.id, create.no_new_keyring)?;
    let uid = spec.root.pointer("/process/user/uid").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let uid = u32::try_from(uid).map_err(|_| Error::invalid_argument(format!("uid {uid}")))?;
    if let Some(owner) = users::host_uid(&spec.root, uid) {
        helper::own_streams(owner);
    }
    // Hooks of the runtime's own namespaces may mount something for all to see.
    let hooks = ["/hooks/prestart", "/hooks/createRuntime"].iter().any(|at| !list(&spec.root, at).is_empty());
    if !hooks && !normalise::wants_slave(&spec.root) {
        leave_propagation()?;
    }
    if normalise::writable_cgroup(&spec.root) {
        cgroup::join_left_out(text(&spec.root, "/linux/cgroupsPath").unwrap_or_default())?;
    }
    let made = build(&mut spec, create, report).and_then(|container| {
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

/// Makes the container as `spec` has it.
fn build(spec: &mut Spec, create: &Create, report: &Report) -> Result<Container> {
    let payload = Payload::new(report.clone(), strings(&spec.root, "/process/env"));
    let plain = spec.root.clone();
    name_home(&mut spec.root);
    // Lasts until the container is in it.
    let _users = users::make(&mut spec.root)?;
    spec.save()?;
    let built = builder(create, payload).and_then(|init| init.build().map_err(|error| explain(&error)));
    // Others read the bundle's specification too, and so does whoever makes the container again.
    spec.root = plain;
    spec.save()?;
    built
}

fn builder(create: &Create, payload: Payload) -> Result<InitContainerBuilder> {
    let builder = ContainerBuilder::new(create.id.clone(), SyscallType::Linux)
        .with_executor(payload)
        .with_console_socket(create.console_socket.clone())
        .with_root_path(&create.state_dir)
        .and_then(ContainerBuilder::validate_id);
    let init = builder.map_err(|error| explain(&error))?.as_init(&create.bundle);
    Ok(init.with_systemd(create.systemd_cgroup).with_no_pivot(create.no_pivot_root).with_detach(true))
}

/// Gives the environment a `HOME` if it has none: `libcontainer` would ask the C library for the user's, in the
/// container and before it has become the program. The library reads a hostile `/etc/passwd` without bounds, and as its
/// `/etc/nsswitch.conf` says it loads code from the image. The program gets the home that [`Payload`] finds.
fn name_home(spec: &mut Value) {
    let env = &mut spec["process"]["env"];
    if !env.is_array() {
        *env = json!([]);
    }
    let Some(env) = env.as_array_mut() else { return };
    if !env
        .iter()
        .any(|entry| entry.as_str().is_some_and(|entry| entry.len() > 5 && entry.starts_with("HOME=")))
    {
        env.push("HOME=/".into());
    }
}

fn strings(value: &Value, at: &str) -> Vec<String> {
    list(value, at).iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
}

/// Runs a container's hooks of one kind.
pub(super) fn hooks(hooks: &Hooks) -> Result<()> {
    // `libcontainer`'s own way to load a container looks at its process, and fails if that ends at this very moment.
    let mut state = State::load(&hooks.dir)
        .map_err(|error| Error::unknown(error.to_string()).context("load the container's state"))?;
    let config = YoukiConfig::load(&hooks.dir).map_err(|error| explain(&error))?;
    let Some(all) = &config.hooks else { return Ok(()) };
    // Source: the OCI runtime specification, "Lifecycle".
    let (list, status) = match hooks.which.as_str() {
        "poststart" => (all.poststart(), ContainerStatus::Running),
        "poststop" => (all.poststop(), ContainerStatus::Stopped),
        other => return Err(Error::internal(format!("hooks {other:?}"))),
    };
    state.status = status;
    libcontainer::hooks::run_hooks(list.as_ref(), Some(&state), None, None, None)
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
