//! The one error type: a kind, what was being done, and the cause.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The result of everything that can fail in gantry.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What class an error is of. Callers act on it; people read the rest.
///
/// The classes mirror containerd's `errdefs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing better is known.
    Unknown,
    /// The object does not exist.
    NotFound,
    /// The object, or its name, exists already.
    AlreadyExists,
    /// The caller sent something that can never be right.
    InvalidArgument,
    /// The object is not in the state that the call needs.
    FailedPrecondition,
    /// A concurrent change got in the way; travels as `FailedPrecondition` with its own phrase.
    Conflict,
    /// The change would change nothing; travels as `FailedPrecondition` with its own phrase.
    NotModified,
    /// Try again later.
    Unavailable,
    /// Not built, or not for this object.
    Unimplemented,
    /// Stopped half-way by a conflict the caller may retry at a higher level.
    Aborted,
    /// An offset or number beyond what the object holds.
    OutOfRange,
    /// A quota, a size or a disk is full.
    ResourceExhausted,
    /// The caller may not do this.
    PermissionDenied,
    /// Nobody knows who the caller is.
    Unauthenticated,
    /// The caller gave up.
    Canceled,
    /// Time ran out.
    DeadlineExceeded,
    /// Data was lost or is damaged.
    DataLoss,
    /// An invariant of ours does not hold.
    Internal,
}

/// One row of the table that maps a kind to the wire.
struct Row(ErrorKind, i32, &'static str);

/// The only table of kinds, gRPC codes and phrases.
///
/// Source: gRPC status codes; phrases are those of containerd's `errdefs` package, which its Go
/// client looks for at the end of messages.
const TABLE: &[Row] = &[
    Row(ErrorKind::Canceled, 1, "context canceled"),
    Row(ErrorKind::Unknown, 2, "unknown"),
    Row(ErrorKind::InvalidArgument, 3, "invalid argument"),
    Row(ErrorKind::DeadlineExceeded, 4, "context deadline exceeded"),
    Row(ErrorKind::NotFound, 5, "not found"),
    Row(ErrorKind::AlreadyExists, 6, "already exists"),
    Row(ErrorKind::PermissionDenied, 7, "permission denied"),
    Row(ErrorKind::ResourceExhausted, 8, "resource exhausted"),
    Row(ErrorKind::FailedPrecondition, 9, "failed precondition"),
    Row(ErrorKind::Conflict, 9, "conflict"),
    Row(ErrorKind::NotModified, 9, "not modified"),
    Row(ErrorKind::Aborted, 10, "aborted"),
    Row(ErrorKind::OutOfRange, 11, "out of range"),
    Row(ErrorKind::Unimplemented, 12, "not implemented"),
    Row(ErrorKind::Internal, 13, "internal"),
    Row(ErrorKind::Unavailable, 14, "unavailable"),
    Row(ErrorKind::DataLoss, 15, "data loss"),
    Row(ErrorKind::Unauthenticated, 16, "unauthenticated"),
];

impl ErrorKind {
    /// Every kind, once.
    pub fn all() -> impl Iterator<Item = ErrorKind> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.0 == self).expect("every kind has a row in TABLE")
    }

    /// The gRPC status code that carries this kind.
    pub fn code(self) -> i32 {
        self.row().1
    }

    /// The last words of a message of this kind.
    pub fn phrase(self) -> &'static str {
        self.row().2
    }

    /// The kind that a gRPC status of `code` and `message` carries; `Unknown` for codes not in the table.
    pub fn from_status(code: i32, message: &str) -> ErrorKind {
        let mut rows = TABLE.iter().filter(|row| row.1 == code);
        let Some(first) = rows.next() else { return ErrorKind::Unknown };
        rows.find(|row| message == row.2 || message.ends_with(&format!(": {}", row.2))).unwrap_or(first).0
    }

    /// The kind an I/O error amounts to when nothing more is known about the object.
    pub fn from_io(error: &std::io::Error) -> ErrorKind {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::PermissionDenied => ErrorKind::PermissionDenied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::OutOfMemory => {
                ErrorKind::ResourceExhausted
            }
            Io::TimedOut => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Unknown,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phrase())
    }
}

/// What went wrong: a kind, what was being done from the outside in, and the cause.
///
/// `Display` prints `outer step: inner step: cause: phrase of the kind`. The phrase comes last, once.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    /// Innermost first.
    steps: Vec<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` about `what`: an object, or a step and its object.
    pub fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner { kind, steps: vec![what.into()], source: None }))
    }

    /// An error that says no more than its kind.
    pub fn bare(kind: ErrorKind) -> Self {
        Error(Box::new(Inner { kind, steps: Vec::new(), source: None }))
    }

    /// An error of `kind` caused by `source`.
    pub fn with_source(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error(Box::new(Inner { kind, steps: Vec::new(), source: Some(source.into()) }))
    }

    /// An I/O error, its kind taken from the error itself.
    pub fn io(source: std::io::Error) -> Self {
        Self::with_source(ErrorKind::from_io(&source), source)
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error, with what was being done around it.
    #[must_use]
    pub fn context(mut self, step: impl Into<Cow<'static, str>>) -> Self {
        self.0.steps.push(step.into());
        self
    }

    /// The operating system's error number, when an I/O error is the cause.
    pub fn os_error(&self) -> Option<i32> {
        self.0.source.as_ref()?.downcast_ref::<std::io::Error>()?.raw_os_error()
    }

    /// Rebuilds an error from a status that came over the wire: the message is kept as it is, and
    /// the phrase at its end is not repeated by `Display`.
    pub fn from_status(code: i32, message: &str) -> Self {
        let kind = ErrorKind::from_status(code, message);
        let phrase = kind.phrase();
        match message.strip_suffix(phrase).map(|rest| rest.strip_suffix(": ").unwrap_or(rest)) {
            Some("") => Self::bare(kind),
            Some(rest) if message.len() == rest.len() + 2 + phrase.len() => Self::new(kind, rest.to_owned()),
            _ => Error(Box::new(Inner {
                kind,
                steps: Vec::new(),
                source: Some(Box::new(Remote(message.to_owned()))),
            })),
        }
    }

    /// What the edges send as a status message: `Display`.
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The same, or its ends where it is longer than `most` bytes: the last words say the kind.
    pub fn short_message(&self, most: usize) -> String {
        let message = self.message();
        if message.len() <= most {
            return message;
        }
        let (mut head, mut tail) = (most / 2, message.len() - most / 4);
        while !message.is_char_boundary(head) {
            head -= 1;
        }
        while !message.is_char_boundary(tail) {
            tail += 1;
        }
        format!("{} [...] {}", &message[..head], &message[tail..])
    }
}

/// An operating system's error as containerd's clients know it, and match it: in lower case, and without its number.
///
/// Source: Go's `syscall.Errno`, whose texts are those of strerror(3) in lower case.
fn in_words(text: String) -> String {
    let Some((words, number)) = text.split_once(" (os error ") else { return text };
    let mut chars = words.chars();
    match chars.next() {
        Some(first) if number.ends_with(')') => first.to_lowercase().chain(chars).collect(),
        _ => text,
    }
}

/// A message that another process worded; it is passed on unchanged.
#[derive(Debug)]
struct Remote(String);

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Remote {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut part = |f: &mut fmt::Formatter<'_>, text: &dyn fmt::Display| {
            if !std::mem::take(&mut first) {
                f.write_str(": ")?;
            }
            write!(f, "{text}")
        };
        for step in self.0.steps.iter().rev() {
            part(f, step)?;
        }
        let (mut remote, mut said) = (false, false);
        let mut cause = self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static));
        while let Some(source) = cause {
            remote |= source.is::<Remote>();
            let text = in_words(source.to_string());
            said = text == self.0.kind.phrase();
            part(f, &text)?;
            cause = source.source();
        }
        // A stranger's text is passed on to the letter, and `Unknown` adds nothing a person could use.
        let silent = remote
            || said
            || (self.0.kind == ErrorKind::Unknown && (!self.0.steps.is_empty() || self.0.source.is_some()));
        if !silent {
            part(f, &self.0.kind.phrase())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // Display already prints the whole chain.
        None
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Error::io(source)
    }
}

/// Adds what was being done to the error of a result.
pub trait ResultExt<T> {
    /// Names the step, as in `remove snapshot "x"`.
    ///
    /// # Errors
    /// The same error, with the step around it.
    fn context(self, step: impl Into<Cow<'static, str>>) -> Result<T>;

    /// The same, building the text only on failure.
    ///
    /// # Errors
    /// The same error, with the step around it.
    fn with_context<S: Into<Cow<'static, str>>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, step: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.into().context(step))
    }

    fn with_context<S: Into<Cow<'static, str>>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().context(step()))
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        impl Error {
            $($(#[$doc])*
            pub fn $name(what: impl Into<Cow<'static, str>>) -> Self {
                Self::new(ErrorKind::$kind, what)
            })*
        }
    };
}

constructors! {
    /// `what` does not exist.
    not_found => NotFound;
    /// `what` exists already.
    already_exists => AlreadyExists;
    /// `what` says which argument, and why.
    invalid_argument => InvalidArgument;
    /// `what` is not in the state the call needs.
    failed_precondition => FailedPrecondition;
    /// `what` may work later.
    unavailable => Unavailable;
    /// `what` is not built.
    unimplemented => Unimplemented;
    /// `what` lies beyond the object.
    out_of_range => OutOfRange;
    /// `what` is full or too large.
    resource_exhausted => ResourceExhausted;
    /// `what` was given up by its caller.
    canceled => Canceled;
    /// `what` took too long.
    deadline_exceeded => DeadlineExceeded;
    /// `what` breaks an invariant of ours.
    internal => Internal;
    /// `what` failed, and no class fits.
    unknown => Unknown;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_reads_from_the_outside_in_and_ends_with_the_phrase_once() {
        let error = Error::io(std::io::Error::from_raw_os_error(13))
            .context("create shim")
            .context("start task \"web\"");
        assert_eq!(error.to_string(), "start task \"web\": create shim: permission denied");
        assert_eq!(Error::not_found("container \"a\"").to_string(), "container \"a\": not found");
    }

    #[test]
    fn every_kind_survives_its_status() {
        for kind in ErrorKind::all() {
            let error = Error::new(kind, "thing \"x\"").context("do");
            let back = Error::from_status(kind.code(), &error.message());
            assert_eq!(back.kind(), kind);
            assert_eq!(back.message(), error.message());
        }
    }

    #[test]
    fn a_strangers_text_is_kept_to_the_letter() {
        let back = Error::from_status(9, "cannot do this");
        assert_eq!(back.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(back.to_string(), "cannot do this");
        assert_eq!(back.context("delete \"a\"").to_string(), "delete \"a\": cannot do this");
    }
}
