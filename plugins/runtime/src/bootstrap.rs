//! Running a shim's commands: `start`, `delete`, `-info`.
//!
//! Flags and environment say the same to shims old and new. Standard input can carry only one thing: the parameters of
//! the new protocol, or the runtime options of the old one, on which some old shims stumble if they get the other. So
//! the new one goes first, the old one after a failure, and which of them a program understood is remembered.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_core::tasks::ExitRecord;
use gantry_core::{Any, Error, ErrorKind, Result, ResultExt};
use gantry_shim::bootstrap::{Answer, MAX_ANSWER_BYTES, params_to_bytes};
use gantry_shim::convert;
use gantry_shim::wire::{BootstrapParams, DeleteResponse, Extension, LogLevel};
use gantry_sys::Spawn;
use gantry_sys::process::{Capture, Output};
use prost::Message;

use crate::bundle::Bundle;
use crate::config::ShimTasksConfig;

/// How many programs are remembered; there are a handful of them.
const MAX_PROGRAMS: usize = 64;

/// What a shim reads on its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    New,
    Old,
}

/// A program as it is now: an upgrade makes it another.
type Program = (u64, u64, i64);

/// Runs shims' commands.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    dialects: Mutex<HashMap<Program, Dialect>>,
}

impl Commands {
    /// Starts the shim `binary` for `bundle` and gives its answer.
    ///
    /// # Errors
    /// `Unknown` with what the program said; `InvalidArgument` for an answer that makes no sense; `DeadlineExceeded`.
    pub(crate) async fn start(
        &self,
        config: &ShimTasksConfig,
        binary: &Path,
        bundle: &Bundle,
        options: Option<&Any>,
    ) -> Result<Answer> {
        let program = program(binary);
        let known = program.and_then(|program| self.dialect(&program));
        let first = known.unwrap_or(Dialect::New);
        let started = match start_in(first, config, binary, bundle, options).await {
            // A timeout is no question of dialects.
            Err(error) if known.is_none() && error.kind() == ErrorKind::Unknown => {
                match start_in(Dialect::Old, config, binary, bundle, options).await {
                    Ok(output) => Ok(output),
                    Err(_) => Err(error),
                }
            }
            started => started,
        };
        let output = started?;
        let answer = Answer::parse(output.trim_ascii()).or_else(|_| Answer::parse(&output))?;
        if let Some(program) = program {
            // The new protocol's answer begins with the tag of its first field; the old ones are text.
            let understood = if output.first() == Some(&0x08) { Dialect::New } else { Dialect::Old };
            self.remember(program, understood);
        }
        Ok(answer)
    }

    fn dialect(&self, program: &Program) -> Option<Dialect> {
        // Nothing panics while holding it.
        self.dialects.lock().unwrap_or_else(PoisonError::into_inner).get(program).copied()
    }

    fn remember(&self, program: Program, dialect: Dialect) {
        let mut dialects = self.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        if dialects.len() >= MAX_PROGRAMS {
            dialects.clear();
        }
        dialects.insert(program, dialect);
    }
}

fn program(binary: &Path) -> Option<Program> {
    let found = std::fs::metadata(binary).ok()?;
    Some((found.dev(), found.ino(), found.mtime()))
}

async fn start_in(
    dialect: Dialect,
    config: &ShimTasksConfig,
    binary: &Path,
    bundle: &Bundle,
    options: Option<&Any>,
) -> Result<Vec<u8>> {
    let stdin = match dialect {
        Dialect::Old => {
            options.map(|any| convert::any_to_proto(any.clone()).encode_to_vec()).unwrap_or_default()
        }
        Dialect::New => params_to_bytes(&BootstrapParams {
            instance_id: bundle.id.to_string(),
            namespace: bundle.namespace.to_string(),
            log_level: if config.debug { LogLevel::Debug.into() } else { LogLevel::Info.into() },
            containerd_version: env!("CARGO_PKG_VERSION").to_owned(),
            containerd_ttrpc_address: config.ttrpc_address.clone(),
            containerd_grpc_address: config.address.clone(),
            containerd_binary: config.publish_binary.display().to_string(),
            extensions: options
                .map(|any| Extension { value: Some(convert::any_to_proto(any.clone())) })
                .into_iter()
                .collect(),
            socket_dir: config.socket_dir.as_ref().map(|dir| dir.display().to_string()),
        }),
    };
    let command = command(config, binary, bundle).arg("start");
    Ok(run(command, stdin, config.timeouts.start).await.context("start shim")?.stdout)
}

/// Cleans up after the dead shim of `bundle`: the runtime's container, the mounts.
///
/// # Errors
/// `Unknown` with what the program said; `DeadlineExceeded`.
pub(crate) async fn delete(config: &ShimTasksConfig, binary: &Path, bundle: &Bundle) -> Result<ExitRecord> {
    let command = command(config, binary, bundle).arg("-bundle").arg(&bundle.path).arg("delete");
    let output = run(command, Vec::new(), config.timeouts.cleanup).await.context("delete shim")?;
    let deleted = DeleteResponse::decode(output.stdout.as_slice())
        .map_err(|error| Error::unknown(format!("answer of the shim's delete: {error}")))?;
    Ok(convert::delete_from_proto(bundle.id.as_str(), deleted))
}

/// Asks the shim `binary` about itself.
///
/// # Errors
/// `Unknown` with what the program said; `DeadlineExceeded`.
pub(crate) async fn info(config: &ShimTasksConfig, binary: &Path, options: Option<Any>) -> Result<Vec<u8>> {
    let stdin = options.map(|any| convert::any_to_proto(any).encode_to_vec()).unwrap_or_default();
    let command = environment(config, Spawn::new(binary)).arg("-info");
    Ok(run(command, stdin, config.timeouts.start).await.context("shim info")?.stdout)
}

/// Source: features I02, I04: flags and environment of the old protocol.
fn command(config: &ShimTasksConfig, binary: &Path, bundle: &Bundle) -> Spawn {
    let spawn = environment(config, Spawn::new(binary))
        .env("NAMESPACE", bundle.namespace.as_str())
        .cwd(&bundle.path)
        .arg("-namespace")
        .arg(bundle.namespace.as_str())
        .arg("-address")
        .arg(&config.address)
        .arg("-publish-binary")
        .arg(&config.publish_binary)
        .arg("-id")
        .arg(bundle.id.as_str());
    if config.debug { spawn.arg("-debug") } else { spawn }
}

fn environment(config: &ShimTasksConfig, spawn: Spawn) -> Spawn {
    let spawn = spawn
        // The daemon's own line to systemd is not a shim's.
        .envs(std::env::vars_os().filter(|(name, _)| name != "NOTIFY_SOCKET"))
        // Source: the original's environment of shims.
        .env("GOMAXPROCS", "2")
        .env("MAX_SHIM_VERSION", "2")
        .env("TTRPC_ADDRESS", &config.ttrpc_address)
        .env("GRPC_ADDRESS", &config.address);
    config.env.iter().fold(spawn, |spawn, (name, value)| spawn.env(name, value))
}

async fn run(command: Spawn, stdin: Vec<u8>, timeout: Duration) -> Result<Output> {
    let capture =
        Capture { stdin, max_stdout_bytes: MAX_ANSWER_BYTES, timeout: Some(timeout), ..Capture::default() };
    let output = command.output(capture).await.map_err(|error| match error.kind() {
        ErrorKind::DeadlineExceeded => error,
        _ => error.with_kind(ErrorKind::Unknown),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(Error::unknown(format!("{said}: {}", output.status)))
}

/// The socket of an answer, which must be one that this daemon can speak to.
///
/// # Errors
/// `Unimplemented` for other protocols and kinds of sockets.
pub(crate) fn socket(answer: &Answer) -> Result<PathBuf> {
    if !matches!(answer.protocol.as_str(), "" | "ttrpc") {
        return Err(Error::unimplemented(format!("shim protocol {:?}", answer.protocol)));
    }
    let path = gantry_ttrpc::socket::path_of(&answer.address);
    match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => Err(Error::unimplemented(format!("shim address {:?}", answer.address))),
    }
}
