//! What a helper tells its caller: lines of JSON on a descriptor of its own, since 0 to 2 are the container's.

use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use gantry_core::{Error, ErrorKind};
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// How long a text in a message may be.
const MAX_TEXT_CHARS: usize = 2048;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Message {
    /// Something went wrong on the way; the first of these is usually the cause.
    Log(String),
    /// A terminal's master comes with this.
    Console,
    /// What the container itself is to blame for, in words for its user.
    Reason(String),
    /// It is done; for a container, its init.
    Done(i32),
    /// It failed: a gRPC code and a text.
    Failed(i32, String),
}

/// The helper's end. Shared by its forks.
#[derive(Clone, Debug)]
pub(super) struct Report(Rc<OwnedFd>);

impl Report {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Report(Rc::new(fd))
    }

    /// Sends a message. If nobody listens any more there is nothing to be done.
    pub(super) fn send(&self, message: &Message) {
        send(&self.0, message);
    }

    /// Sends a terminal's master.
    ///
    /// # Errors
    /// When nobody listens.
    pub(super) fn console(&self, master: &OwnedFd) -> std::io::Result<()> {
        gantry_sys::socket::send(&*self.0, &line(&Message::Console), master).map(drop)
    }

    /// Sends an error as what ended the work.
    pub(super) fn fail(&self, error: &Error) {
        let text = error.to_string();
        self.send(&Message::Failed(error.kind().code(), shorten(text)));
    }

    /// A second handle on the same descriptor, for what has to be `Send`.
    pub(super) fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

fn send(fd: impl AsFd, message: &Message) {
    let bytes = line(message);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match rustix::net::send(&fd, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn line(message: &Message) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn shorten(text: String) -> String {
    if text.len() <= MAX_TEXT_CHARS { text } else { text.chars().take(MAX_TEXT_CHARS).collect() }
}

/// Rebuilds what [`Report::fail`] sent.
pub(super) fn failure(code: i32, text: &str) -> Error {
    match ErrorKind::from_status(code, text) {
        ErrorKind::Unknown => Error::unknown(text.to_owned()),
        _ => Error::from_status(code, text),
    }
}

/// Sends the errors that `libcontainer` logs: what it returns often says less.
#[derive(Debug)]
pub(super) struct ErrorLog {
    /// Where they go.
    pub(super) fd: OwnedFd,
    /// The container's working directory, which `libcontainer` does not name.
    pub(super) cwd: String,
}

impl Subscriber for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        if text.message == "failed to chdir" {
            // Source: runc's words.
            text.message = format!("chdir to cwd ({:?}) set in config.json failed", self.cwd);
        }
        let said =
            if text.fields.is_empty() { text.message } else { format!("{}: {}", text.message, text.fields) };
        send(&self.fd, &Message::Log(shorten(said)));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // The cause without its name, as errors are worded here.
            "err" | "error" | "e" | "ret" => write!(self.fields, "{} ", in_words(&format!("{value:?}"))),
            name => write!(self.fields, "{name}={value:?} "),
        };
    }
}

/// What a kernel's error name such as `ENOTDIR` means; anything else as it is.
fn in_words(text: &str) -> String {
    // Source: errno(3); the kernel's own are below this.
    let known = (1..134).map(nix::errno::Errno::from_raw).find(|errno| format!("{errno:?}") == text);
    known.map_or_else(|| text.to_owned(), |errno| errno.desc().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_name_becomes_words() {
        assert_eq!(in_words("ENOTDIR"), "not a directory");
        assert_eq!(in_words("Nix(ENOENT)"), "Nix(ENOENT)");
    }

    #[test]
    fn an_error_keeps_its_kind_and_words() {
        for kind in [ErrorKind::Unknown, ErrorKind::InvalidArgument, ErrorKind::NotFound] {
            let error = Error::new(kind, "x").context("do");
            let back = failure(kind.code(), &error.to_string());
            assert_eq!((back.kind(), back.to_string()), (kind, error.to_string()));
        }
    }

    #[test]
    fn messages_are_lines() {
        let long = Message::Log("a\nb".to_owned());
        let bytes = line(&long);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Message>(&bytes).unwrap(), long);
    }
}
