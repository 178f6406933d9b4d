//! The command line's arguments.

use clap::{Args, Parser, Subcommand};
use gantry_core::wire_names::{DEFAULT_ADDRESS, DEFAULT_NAMESPACE};

use crate::verbs::{
    events, exec, fsck, gc, images, inspect, kill, logs, pause, plugins, ps, pull, rm, rmi, run, version,
};

/// Pulls images, runs containers, looks at them, ends them. Works with gantryd and with containerd.
#[derive(Parser)]
#[command(name = "gantry", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes. Source: the global flags of `ctr`.
#[derive(Args)]
pub(crate) struct Global {
    /// The daemon's socket
    #[arg(long, short = 'a', env = "CONTAINERD_ADDRESS", default_value = DEFAULT_ADDRESS, global = true, value_name = "PATH")]
    pub(crate) address: String,
    /// The namespace of containers and images
    #[arg(long, short = 'n', env = "CONTAINERD_NAMESPACE", default_value = DEFAULT_NAMESPACE, global = true, value_name = "NAME")]
    pub(crate) namespace: String,
    /// Say on standard error what is done
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// What can be done.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Fetch an image and unpack it
    Pull(pull::Flags),
    /// List images
    Images(images::Flags),
    /// Remove images
    Rmi(rmi::Flags),
    /// Run a process in a new container
    Run(Box<run::Flags>),
    /// List containers
    Ps(ps::Flags),
    /// Show all about a container, as JSON
    Inspect(inspect::Flags),
    /// Run another process in a container
    Exec(exec::Flags),
    /// Show the output of a container that was started with run -d
    Logs(logs::Flags),
    /// Send a signal to containers
    Kill(kill::Flags),
    /// Freeze containers
    Pause(pause::Flags),
    /// Thaw containers
    Resume(pause::Flags),
    /// Remove containers
    Rm(rm::Flags),
    /// Show what happens, in all namespaces
    Events(events::Flags),
    /// Say who keeps an object from garbage collection, and what the next collection would free
    #[command(subcommand)]
    Gc(gc::Verb),
    /// Compare records and data of the store, and repair it
    #[command(after_help = fsck::EXIT_STATUS)]
    Fsck(fsck::Flags),
    /// List the daemon's plugins
    Plugins(plugins::Flags),
    /// Show the versions of this program and of the daemon
    Version(version::Flags),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(words: &[&str]) -> Result<Verb, clap::Error> {
        Cli::try_parse_from([&["gantry"], words].concat()).map(|cli| cli.verb)
    }

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_behind_a_command_belong_to_it() {
        let Ok(Verb::Run(run)) = parse(&["run", "--rm", "debian", "c1", "ls", "-l", "--rm", "-n", "x"])
        else {
            panic!("run is read")
        };
        assert_eq!((run.image.as_str(), run.id.as_deref()), ("debian", Some("c1")));
        assert_eq!(run.command, ["ls", "-l", "--rm", "-n", "x"]);
        let Ok(Verb::Exec(exec)) = parse(&["exec", "-t", "c1", "sh", "-c", "echo -t"]) else {
            panic!("exec is read")
        };
        assert_eq!((exec.id.as_str(), exec.command.join(" ").as_str()), ("c1", "sh -c echo -t"));
    }

    #[test]
    fn gc_asks_for_a_kind_and_a_name() {
        let Ok(Verb::Gc(gc::Verb::Explain(explain))) =
            parse(&["gc", "explain", "snapshot", "k", "--snapshotter", "x"])
        else {
            panic!("gc explain is read")
        };
        assert_eq!(explain.kind, gantry_core::maintenance::ObjectKind::Snapshot);
        assert!(parse(&["gc", "explain", "layer", "k"]).is_err(), "no such kind");
        assert!(parse(&["gc", "explain", "image"]).is_err(), "no name");
        assert!(parse(&["gc"]).is_err(), "nothing to do");
    }

    #[test]
    fn what_goes_on_alone_has_no_terminal_and_is_not_removed() {
        for flag in ["-t", "-i", "--rm"] {
            assert!(parse(&["run", "-d", flag, "debian", "c1"]).is_err(), "-d {flag}");
        }
        assert!(parse(&["run", "--log-file", "/tmp/x", "debian", "c1"]).is_err(), "a log without -d");
    }
}
