//! The command line: the original's flags and subcommands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gantry_core::{Result, wire_names};
use gantry_metadata::takeover::Takeover;
use toml::{Table, Value};

use crate::config::{self, Config};
use crate::takeover;

/// gantryd: a container daemon that speaks containerd's protocols.
#[derive(Debug, Parser)]
#[command(name = "gantryd", version = VERSION_LINE, disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct Arguments {
    /// Path of the configuration file.
    #[arg(short, long, global = true)]
    pub(crate) config: Option<PathBuf>,
    /// trace, debug, info, warn, error, fatal or panic.
    #[arg(short, long, global = true)]
    pub(crate) log_level: Option<String>,
    /// Path of the gRPC socket.
    #[arg(short, long, global = true)]
    pub(crate) address: Option<String>,
    /// Directory of what must last.
    #[arg(long, global = true)]
    pub(crate) root: Option<PathBuf>,
    /// Directory of what a reboot may take.
    #[arg(long, global = true)]
    pub(crate) state: Option<PathBuf>,
    /// What to do with the records that containerd left at the root: say what would be taken over and refuse (check), take them
    /// over once (on), or also replace gantryd's own where containerd changed its since (again).
    #[arg(long, global = true, value_name = "check|on|again", default_value = "check", value_parser = parse_takeover)]
    takeover: Takeover,
    /// What may be left out of a takeover: the name of a snapshotter that gantryd has not, or a word that the report gives.
    #[arg(long, global = true, value_name = "WORD")]
    takeover_leave_out: Vec<String>,
    /// How the report of a takeover is printed.
    #[arg(long, global = true, value_name = "text|json", default_value = "text", value_parser = ["text", "json"])]
    takeover_format: String,
    /// Print the version.
    // Source: the original's flag is a small letter.
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print configurations.
    Config {
        /// Which one.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Publish an event that is read from standard input, as shims do.
    Publish(Publish),
    /// Compare records and data of a root that no daemon uses. Exit status: 0 no damage, 1 all of it repaired, 4 some is
    /// left, 8 not checked.
    Fsck(Fsck),
}

/// How to check.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Read every blob and compare its digest.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Repair what can be repaired without loss.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print a JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which configuration to print.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// The defaults.
    Default,
    /// What the file, its imports and the flags amount to.
    Dump,
}

/// An event's addressing.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The namespace it happened in.
    #[arg(long)]
    pub(crate) namespace: String,
    /// Its topic.
    #[arg(long)]
    pub(crate) topic: String,
}

/// Source: features C08: package, version, revision.
const VERSION_LINE: &str = concat!("gantry ", env!("CARGO_PKG_VERSION"), " ", env!("GANTRY_REVISION"));

fn parse_takeover(text: &str) -> Result<Takeover, String> {
    text.parse().map_err(|error: gantry_core::Error| error.to_string())
}

impl Arguments {
    /// What is to become of containerd's records.
    pub(crate) fn takeover(&self) -> takeover::Options {
        takeover::Options {
            how: self.takeover,
            left_out: self.takeover_leave_out.iter().cloned().collect(),
            json: self.takeover_format == "json",
        }
    }

    /// The configuration file with the flags over it.
    ///
    /// # Errors
    /// As [`config::load`].
    pub(crate) fn configuration(&self) -> Result<Config> {
        let mut config = config::load(self.config.as_deref())?;
        if let Some(root) = &self.root {
            config.root.clone_from(root);
        }
        if let Some(state) = &self.state {
            config.state.clone_from(state);
        }
        if let Some(level) = &self.log_level {
            config.log_level.clone_from(level);
        }
        if let Some(address) = &self.address {
            let section = config
                .plugins
                .entry("io.containerd.server.v1.grpc")
                .or_insert_with(|| Value::Table(Table::new()));
            if let Some(section) = section.as_table_mut() {
                section.insert("address".into(), Value::String(address.clone()));
            }
        }
        Ok(config)
    }

    /// The daemon's socket, as the flags and the file say.
    pub(crate) fn server_address(&self) -> String {
        self.address.clone().unwrap_or_else(|| wire_names::DEFAULT_ADDRESS.to_owned())
    }
}
