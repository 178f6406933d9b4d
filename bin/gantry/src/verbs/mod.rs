//! What can be done, one file a verb.

pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod fsck;
pub(crate) mod gc;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod pause;
pub(crate) mod plugins;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod version;

use std::io::ErrorKind as Io;
use std::os::unix::net::UnixStream;

use gantry_client::{Client, Container, Task};
use gantry_core::{ErrorKind, Namespace};

use crate::arguments::{Cli, Global, Verb};
use crate::failure::{Advise as _, EXIT_USAGE, Failure, Result};

/// Does what was asked for; the exit code.
pub(crate) async fn run(cli: Cli) -> Result<i32> {
    if let Verb::Version(flags) = &cli.verb {
        return version::run(&cli.global, flags).await;
    }
    if let Verb::Fsck(flags) = &cli.verb {
        return fsck::run(&cli.global, flags).await;
    }
    let client = connect(&cli.global).await?;
    match cli.verb {
        Verb::Pull(flags) => pull::run(&client, flags).await,
        Verb::Images(flags) => images::run(&client, flags).await,
        Verb::Rmi(flags) => rmi::run(&client, flags).await,
        Verb::Run(flags) => run::run(&client, *flags).await,
        Verb::Ps(flags) => ps::run(&client, flags).await,
        Verb::Inspect(flags) => inspect::run(&client, flags).await,
        Verb::Exec(flags) => exec::run(&client, flags).await,
        Verb::Logs(flags) => logs::run(&client, flags).await,
        Verb::Kill(flags) => kill::run(&client, flags).await,
        Verb::Pause(flags) => pause::pause(&client, flags).await,
        Verb::Resume(flags) => pause::resume(&client, flags).await,
        Verb::Rm(flags) => rm::run(&client, flags).await,
        Verb::Events(flags) => events::run(&client, flags).await,
        Verb::Gc(verb) => gc::run(&client, verb).await,
        Verb::Fsck(flags) => fsck::run(&cli.global, &flags).await,
        Verb::Plugins(flags) => plugins::run(&client, flags).await,
        Verb::Version(flags) => version::run(&cli.global, &flags).await,
    }
}

/// A client of the daemon that was named.
///
/// # Errors
/// With advice on how to reach it.
pub(crate) async fn connect(global: &Global) -> Result<Client> {
    let namespace =
        Namespace::parse(global.namespace.clone()).map_err(|error| Failure::from(error).code(EXIT_USAGE))?;
    Client::connect(&global.address, namespace).await.map_err(|error| {
        let failure = Failure::from(error);
        match unreachable(&global.address) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// Why nobody can be reached at `address`, and what to do.
fn unreachable(address: &str) -> Option<String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    match UnixStream::connect(path).err()?.kind() {
        Io::PermissionDenied => Some("run as root: the daemon's socket is not for everybody".to_owned()),
        Io::NotFound | Io::ConnectionRefused => {
            Some("is gantryd running? If its socket is elsewhere, name it with --address".to_owned())
        }
        _ => None,
    }
}

/// Adds advice to the answer of a service that only gantryd has.
pub(crate) fn only_gantryd<T>(answer: std::result::Result<T, gantry_core::Error>) -> Result<T> {
    answer
        .advise(ErrorKind::Unimplemented, || "this daemon is not gantryd, which alone can answer".to_owned())
}

/// The container `id`.
///
/// # Errors
/// With advice on where to find its id.
pub(crate) async fn container(client: &Client, id: &str) -> Result<Container> {
    let found = client.load_container(id).await;
    found.advise(ErrorKind::NotFound, || {
        format!("gantry ps lists the containers of namespace {}", client.namespace())
    })
}

/// The task of `container`.
///
/// # Errors
/// With advice if it has none.
pub(crate) async fn task(container: &Container) -> Result<Task> {
    let found = container.task().await;
    found.advise(ErrorKind::NotFound, || {
        format!("nothing runs in it; gantry rm {} removes it", container.id())
    })
}
