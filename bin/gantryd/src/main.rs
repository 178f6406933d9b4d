//! The daemon: reads arguments and configuration, starts the plugins, serves until told to stop.
#![forbid(unsafe_code)]

mod arguments;
mod config;
mod daemon;
mod fsck;
mod logging;
mod notify;
mod plugins;
mod publish;
mod takeover;

use std::process::ExitCode;

use arguments::{Arguments, Command, ConfigCommand};
use clap::Parser as _;
use gantry_core::Result;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Fsck(options)) = &arguments.command {
        return fsck::run(&arguments, options);
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantryd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    match &arguments.command {
        // That one was run above: its exit status says more.
        None | Some(Command::Fsck(_)) => {}
        Some(Command::Config { command: ConfigCommand::Default }) => {
            print!("{}", plugins::default_configuration()?);
            return Ok(());
        }
        Some(Command::Config { command: ConfigCommand::Dump }) => {
            let config = arguments.configuration()?;
            print!("{}", plugins::configuration_text(&config)?);
            return Ok(());
        }
        Some(Command::Publish(publish)) => return publish::run(&arguments, publish),
    }
    gantry_sys::memory::return_large_blocks();
    // For crash tests only.
    gantry_failpoint::arm_from_environment()?;
    let config = arguments.configuration()?;
    logging::start(&config)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    daemon::run(config, &arguments.takeover())
}
