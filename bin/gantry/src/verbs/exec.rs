//! `gantry exec`.

use clap::Args;
use gantry_client::{Client, IoRequest};
use gantry_core::{ErrorKind, ExecId};
use gantry_oci::spec::ExecOptions;

use crate::failure::Result;
use crate::foreground::{self, Stdio};
use crate::signals::Signals;
use crate::values::environment::EnvFlags;
use crate::verbs::run::missing_program;
use crate::verbs::{container, task};

/// What `exec` takes.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    stdio: Stdio,
    /// Do not wait for the process; its output goes nowhere
    #[arg(long, short = 'd', conflicts_with_all = ["tty", "interactive"])]
    detach: bool,
    #[command(flatten)]
    env: EnvFlags,
    /// Where the process starts; the container's directory by default
    #[arg(long, short = 'w', visible_alias = "workdir", value_name = "DIR")]
    cwd: Option<String>,
    /// Who runs it: USER or USER:GROUP, names or numbers; the container's user by default
    #[arg(long, short = 'u', value_name = "USER")]
    user: Option<String>,
    /// Let it do all that root may
    #[arg(long)]
    privileged: bool,
    /// The container
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<String>,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    flags.stdio.check()?;
    let task = task(&container(client, &flags.id).await?).await?;
    let env = flags.env.read()?;
    let options = ExecOptions {
        args: flags.command.clone(),
        env,
        cwd: flags.cwd,
        user: flags.user,
        terminal: flags.stdio.tty,
        console_size: flags.stdio.console_size(),
        privileged: flags.privileged,
    };
    let id = ExecId::parse(format!("exec-{:08x}", rand::random::<u32>()))?;
    let io = if flags.detach { IoRequest::Null } else { flags.stdio.request() };
    let mut signals = Signals::take()?;
    let process = task.exec(id, options, io).await?;
    if !flags.detach {
        let code = foreground::run_to_end(&process, flags.stdio, &mut signals).await;
        return code.map_err(|failure| missing_program(failure, &flags.command));
    }
    match process.start().await {
        Ok(()) => Ok(0),
        Err(error) => {
            let failure = missing_program(error.into(), &flags.command);
            match process.kill_and_delete().await {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failure.and(error)),
                _ => Err(failure),
            }
        }
    }
}
