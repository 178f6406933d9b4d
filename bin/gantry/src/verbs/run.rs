//! `gantry run`.

use std::path::PathBuf;

use clap::Args;
use gantry_client::{Client, Container, ContainerOptions, Image, IoRequest, RuncOptions};
use gantry_core::{ContainerId, ErrorKind, Labels};
use gantry_oci::SpecOptions;
use gantry_oci::runtime::Mount;
use gantry_oci::spec::{Cpu, Memory};
use gantry_registry::Credentials;

use crate::failure::{Advise as _, EXIT_USAGE, Failure, Result};
use crate::foreground::{self, Stdio, interrupted};
use crate::progress::Lines;
use crate::pulling::{PullPolicy, Pulling, RegistryFlags};
use crate::signals::{Signals, asks_to_end};
use crate::values::environment::EnvFlags;
use crate::values::{mounts, pairs, sizes};
use crate::verbs::rm::remove_all;
use crate::{log_file, output};

/// What `run` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Remove the container when its process has ended
    #[arg(long, conflicts_with = "detach")]
    rm: bool,
    /// Do not wait for the process; its output goes to a file, which gantry logs shows
    #[arg(long, short = 'd', conflicts_with_all = ["tty", "interactive"])]
    detach: bool,
    #[command(flatten)]
    stdio: Stdio,
    /// The file that output goes to, with -d
    #[arg(long, value_name = "FILE", requires = "detach")]
    log_file: Option<PathBuf>,
    /// Begin another log file when the first is this large, for example 10m; the first stays as FILE.1, and so on
    #[arg(long, value_parser = sizes::bytes, value_name = "SIZE", requires = "detach")]
    log_max_size: Option<i64>,
    /// How many log files there may be, from 1 to 100
    #[arg(long, value_name = "NUMBER", requires = "detach")]
    log_max_files: Option<u32>,
    #[command(flatten)]
    process: ProcessFlags,
    #[command(flatten)]
    isolation: IsolationFlags,
    /// The runtime; the namespace's default if absent
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// The OCI runtime that io.containerd.runc.v2 calls, a name or a path; the one built in if absent
    #[arg(long, value_name = "PATH")]
    runc_binary: Option<String>,
    /// A label of the container
    #[arg(long, short = 'l', value_parser = pairs::label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing")]
    pull: PullPolicy,
    #[command(flatten)]
    registry: RegistryFlags,
    /// Who asks the registry, as NAME:SECRET; otherwise what docker login noted counts
    #[arg(long, value_parser = pairs::credentials, value_name = "NAME:SECRET")]
    registry_user: Option<Credentials>,
    /// The image
    pub(crate) image: String,
    /// The container's id; one is made up if absent
    pub(crate) id: Option<String>,
    /// The program and its arguments, in place of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// What its process is like.
#[derive(Args)]
struct ProcessFlags {
    #[command(flatten)]
    env: EnvFlags,
    /// Where the process starts; the image's directory by default
    #[arg(long, short = 'w', visible_alias = "workdir", value_name = "DIR")]
    cwd: Option<String>,
    /// Who runs it: USER or USER:GROUP, names or numbers; the image's user by default
    #[arg(long, short = 'u', value_name = "USER")]
    user: Option<String>,
    /// Let it do all that root may, with all devices
    #[arg(long)]
    privileged: bool,
}

/// What it sees, and how much of it.
#[derive(Args)]
struct IsolationFlags {
    /// A mount, for example type=bind,src=/host,dst=/inside,options=rbind:ro
    #[arg(long, value_parser = mounts::mount)]
    mount: Vec<Mount>,
    /// A bind mount, /host:/inside or /host:/inside:ro
    #[arg(long, short = 'v', value_parser = mounts::volume)]
    volume: Vec<Mount>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Share the host's network
    #[arg(long)]
    net_host: bool,
    /// How much memory it may use, for example 64m
    #[arg(long, visible_alias = "memory-limit", value_parser = sizes::bytes, value_name = "SIZE")]
    memory: Option<i64>,
    /// How many processors' time it may use, for example 0.5
    #[arg(long, value_parser = sizes::cpus, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// How many processes it may have
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
}

impl Flags {
    fn spec(&self) -> Result<SpecOptions> {
        let env = self.process.env.read()?;
        let cpu = match self.isolation.cpus {
            Some(cpus) => Cpu::default().with_cpus(cpus)?,
            None => Cpu::default(),
        };
        Ok(SpecOptions {
            command: self.command.clone(),
            env,
            cwd: self.process.cwd.clone(),
            user: self.process.user.clone(),
            privileged: self.process.privileged,
            terminal: self.stdio.tty,
            console_size: self.stdio.console_size(),
            mounts: self.isolation.mount.iter().chain(&self.isolation.volume).cloned().collect(),
            readonly_rootfs: self.isolation.read_only,
            host_network: self.isolation.net_host,
            memory: Memory { limit_bytes: self.isolation.memory, ..Memory::default() },
            cpu,
            pids_limit: self.isolation.pids_limit,
            ..SpecOptions::default()
        })
    }

    fn options(&self, image: Image, labels: Labels) -> Result<ContainerOptions> {
        let runc = |path: &String| RuncOptions { binary_name: path.clone(), ..RuncOptions::default() };
        Ok(ContainerOptions {
            image: Some(image),
            platform: self.registry.platform(),
            snapshotter: self.registry.snapshotter().map(str::to_owned),
            spec: self.spec()?,
            runtime: self.runtime.clone(),
            runtime_options: self.runc_binary.as_ref().map(runc),
            labels,
            ..ContainerOptions::default()
        })
    }

    fn container_id(&self) -> Result<ContainerId> {
        let text = self.id.clone().unwrap_or_else(|| format!("c-{:08x}", rand::random::<u32>()));
        ContainerId::parse(text).map_err(|error| {
            Failure::from(error)
                .hint("what follows the image is the container's id; flags go before the image")
                .code(EXIT_USAGE)
        })
    }
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    flags.stdio.check()?;
    let id = flags.container_id()?;
    let mut signals = Signals::take()?;
    let pulling = Pulling {
        client,
        registry: &flags.registry,
        user: flags.registry_user.clone(),
        unpack: true,
        lines: Lines::Stderr,
    };
    let image = pulling.find(&flags.image, flags.pull, &mut signals).await?;
    let mut labels: Labels = flags.label.iter().cloned().collect();
    let log = match (flags.detach, &flags.log_file) {
        (false, _) => None,
        (true, Some(path)) => Some(std::path::absolute(path).map_err(gantry_core::Error::io)?),
        (true, None) => Some(log_file::default_path(client, id.as_str()).await?),
    };
    if let Some(log) = &log {
        log_file::note(&mut labels, log)?;
        log_file::limit(&mut labels, flags.log_max_size, flags.log_max_files)
            .map_err(|error| Failure::from(error).code(EXIT_USAGE))?;
    }
    let made = client.new_container(id.clone(), flags.options(image, labels)?).await;
    let container = made.advise(ErrorKind::AlreadyExists, || {
        format!("choose another id, or remove the container that has it: gantry rm {id}")
    })?;
    // From here on there is something to undo.
    let done = match &log {
        Some(log) => in_background(&container, log, &mut signals).await,
        None => in_foreground(&container, flags.stdio, &mut signals).await,
    };
    let done = done.map_err(|failure| missing_program(missing_runtime(failure, &flags), &flags.command));
    if done.is_ok() && !flags.rm {
        return done;
    }
    match (done, remove_all(&container, true).await) {
        (Err(first), Err(later)) => Err(first.and(later)),
        (Ok(_), Err(failure)) => Err(failure),
        (done, Ok(())) => done,
    }
}

async fn in_foreground(container: &Container, stdio: Stdio, signals: &mut Signals) -> Result<i32> {
    stop_if_asked(container, signals)?;
    let task = container.new_task(stdio.request()).await?;
    foreground::run_to_end(&task, stdio, signals).await
}

async fn in_background(container: &Container, log: &std::path::Path, signals: &mut Signals) -> Result<i32> {
    log_file::make(log)?;
    stop_if_asked(container, signals)?;
    let task = container.new_task(IoRequest::Log(log.to_owned())).await?;
    task.start().await?;
    stop_if_asked(container, signals)?;
    output::line(container.id())?;
    Ok(0)
}

fn stop_if_asked(container: &Container, signals: &mut Signals) -> Result<()> {
    match signals.pending().filter(|signal| asks_to_end(*signal)) {
        Some(signal) => Err(interrupted(&format!("run {:?}", container.id()), signal)),
        None => Ok(()),
    }
}

/// Adds advice if a runtime found no program to execute.
pub(crate) fn missing_program(failure: Failure, command: &[String]) -> Failure {
    // Source: what runc, crun and the built-in runtime say.
    let said = failure.text().to_lowercase();
    let absent = said.contains("no such file or directory") || said.contains("executable file not found");
    match command.first() {
        Some(program) if absent && said.contains(&program.to_lowercase()) => failure.hint(format!(
            "is {program} in the image, and are the libraries and the interpreter that it needs?"
        )),
        _ => failure,
    }
}

fn missing_runtime(failure: Failure, flags: &Flags) -> Failure {
    match &flags.runtime {
        Some(runtime) if failure.text().contains(runtime.as_str()) => failure.hint(format!(
            "is the shim of {runtime} installed where the daemon looks for programs? gantry run without --runtime uses the usual one"
        )),
        _ => failure,
    }
}
