//! The log: text or JSON on standard error.

use gantry_core::{Error, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::Config;

/// Starts logging as the configuration says.
///
/// # Errors
/// `InvalidArgument` for a level or format that does not exist.
pub(crate) fn start(config: &Config) -> Result<()> {
    let level = match config.log_level.as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        other => return Err(Error::invalid_argument(format!("log level {other:?}"))),
    };
    // The transport's own frames and polls tell an operator nothing; at trace they are there.
    let transport = if level == LevelFilter::TRACE { level } else { LevelFilter::WARN.min(level) };
    let mut filter = EnvFilter::default().add_directive(level.into());
    for library in ["h2", "hyper", "hyper_util", "tonic", "tower"] {
        let directive = format!("{library}={transport}").parse();
        filter =
            filter.add_directive(directive.map_err(|error| Error::internal(format!("log filter: {error}")))?);
    }
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match config.log_format.as_str() {
        "" | "text" => builder.with_ansi(false).try_init(),
        "json" => builder.json().try_init(),
        other => return Err(Error::invalid_argument(format!("log format {other:?}: text or json"))),
    };
    started.map_err(|error| Error::internal(format!("start the log: {error}")))
}
