//! The command line: pull images, run containers, look at them, end them.
//!
//! What a verb does to a daemon is done by `gantry-client`; here are arguments, what is shown, and advice. Begin with
//! [`arguments`], then a file of [`verbs`].
#![forbid(unsafe_code)]

mod arguments;
mod event_json;
mod failure;
mod foreground;
mod log_file;
mod output;
mod progress;
mod pulling;
mod signals;
mod values;
mod verbs;

use arguments::Cli;
use clap::Parser as _;

fn main() {
    let cli = Cli::parse();
    let code = match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    };
    // Not by returning: a read of standard input that nobody waits for any more would hold the runtime up.
    std::process::exit(code);
}

fn run(cli: Cli) -> failure::Result<i32> {
    logging(cli.global.debug);
    // A second thread, so that fetching goes on while a terminal is slow to take what is drawn.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| gantry_core::Error::io(error).context("start threads"))?;
    let code = runtime.block_on(verbs::run(cli));
    runtime.shutdown_background();
    code
}

/// Warnings of the library, for example that a `hosts.toml` cannot be read, go where errors go.
fn logging(debug: bool) {
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::WARN };
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    lines.without_time().with_target(debug).with_ansi(false).init();
}
