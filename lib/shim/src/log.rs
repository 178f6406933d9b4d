//! The shim's log: lines on the bundle's `log` fifo, which the daemon reads.
//!
//! A full subscriber would cost more memory than the rest of the shim. This one formats each event into one line and
//! writes it without ever waiting: what a daemon that is away does not read is lost once the fifo is full.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use gantry_core::{Error, Result, ResultExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The longest line; below what the kernel writes to a fifo in one piece. Source: pipe(7), `PIPE_BUF`.
const MAX_LINE_BYTES: usize = 4000;

/// Writes events as `time="..." level=... msg="..." key=value`, which the daemon's readers know.
#[derive(Debug)]
pub struct LineLog {
    out: File,
    level: Level,
    spans: AtomicU64,
}

impl LineLog {
    /// Logs to the fifo at `path`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no fifo; otherwise what the kernel said.
    pub fn open(path: &Path, level: Level) -> Result<LineLog> {
        // Open for both, so that opening does not wait for a reader, nor a reader's end end us.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        let out = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .with_context(|| format!("open {path:?}"))?;
        if !out.metadata()?.file_type().is_fifo() {
            return Err(Error::invalid_argument(format!("{path:?} is no fifo")));
        }
        Ok(LineLog::new(out, level))
    }

    /// Logs to an open file.
    pub fn new(out: File, level: Level) -> LineLog {
        LineLog { out, level, spans: AtomicU64::new(1) }
    }
}

impl Subscriber for LineLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("gantry")
            || metadata.target().starts_with("containerd_shim")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut line = Line(format!("time=\"{}\" level={level}", now()));
        event.record(&mut line);
        let mut text = line.0;
        if text.len() >= MAX_LINE_BYTES {
            let end = (0..MAX_LINE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        text.push('\n');
        // There is nobody to tell that the log is full.
        let _ = (&self.out).write_all(text.as_bytes());
    }
}

/// The present as RFC 3339.
fn now() -> String {
    let (seconds, nanos) = gantry_core::time::to_parts(SystemTime::now());
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    // Source: the usual conversion of days to a civil date, counted from 0000-03-01.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (year_of_era + era * 400, month + 3),
        _ => (year_of_era + era * 400 + 1, month - 9),
    };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // The message is shown as it is; quoting it makes it one value.
        let _ = match field.name() {
            "message" => write!(self.0, " msg={:?}", format!("{value:?}")),
            name => write!(self.0, " {name}={:?}", format!("{value:?}")),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, " {}={value}", field.name());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let _ = write!(self.0, " {}={value}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_becomes_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = LineLog::new(file.reopen().unwrap(), Level::INFO);
        tracing::subscriber::with_default(log, || {
            tracing::warn!(target: "gantry_shim", container_id = "a\nb", pid = 7, "it \"ended\"");
            tracing::debug!(target: "gantry_shim", "not shown");
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.ends_with(" level=warning msg=\"it \\\"ended\\\"\" container_id=\"a\\nb\" pid=7\n"),
            "{text}"
        );
        assert!(text.starts_with("time=\"20") && text.contains('Z'));
    }
}
