//! Errors as they are shown: one line that says step, object and cause; below it what to do.

use std::io::Write as _;

use gantry_core::{Error, ErrorKind};

/// What every verb returns.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// An exit code for errors of ours; a process's own is passed on.
pub(crate) const EXIT_ERROR: i32 = 1;
/// An exit code for arguments that cannot be, as `clap` has it.
pub(crate) const EXIT_USAGE: i32 = 2;
/// What a shell makes of SIGPIPE: nobody reads what we print.
const EXIT_PIPE: i32 = 128 + 13;
/// Source: errno(3).
const EPIPE: i32 = 32;

/// What went wrong first, what to do about it, and what went wrong after it.
#[derive(Debug)]
pub(crate) struct Failure {
    first: Box<Error>,
    hint: Option<String>,
    later: Vec<Failure>,
    code: i32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { first: Box::new(error), hint: None, later: Vec::new(), code: EXIT_ERROR }
    }
}

impl Failure {
    /// The same, with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// The same, ending with another exit code.
    pub(crate) fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// The same, with what failed after it: it is shown below, and hides nothing.
    pub(crate) fn and(mut self, later: impl Into<Failure>) -> Self {
        self.later.push(later.into());
        self
    }

    /// The class of the first error.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.first.kind()
    }

    /// What the first error says.
    pub(crate) fn text(&self) -> String {
        self.first.to_string()
    }

    /// The lines that a person sees.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("gantry: {}", one_line(&self.first.to_string()))];
        lines.extend(self.hint.iter().map(|hint| format!("hint: {}", one_line(hint))));
        lines.extend(self.later.iter().flat_map(Failure::lines));
        lines
    }

    /// Writes it to standard error; the exit code.
    pub(crate) fn report(&self) -> i32 {
        if self.first.os_error() == Some(EPIPE) {
            return EXIT_PIPE;
        }
        let mut stderr = std::io::stderr().lock();
        for line in self.lines() {
            // Nobody could be told.
            let _ = writeln!(stderr, "{line}");
        }
        self.code
    }
}

/// A runtime's message may have lines of its own.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Adds advice to the error of a result.
pub(crate) trait Advise<T> {
    /// Gives advice for errors of `kind`.
    fn advise(self, kind: ErrorKind, hint: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Failure>> Advise<T> for std::result::Result<T, E> {
    fn advise(self, kind: ErrorKind, hint: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let failure: Failure = error.into();
            if failure.kind() == kind { failure.hint(hint()) } else { failure }
        })
    }
}

/// Gathers what fails for each of several objects.
#[derive(Default)]
pub(crate) struct Failures(Option<Failure>);

impl Failures {
    /// Notes the failure of `result`, if it is one.
    pub(crate) fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                self.0 = Some(match self.0.take() {
                    None => failure,
                    Some(first) => first.and(failure),
                });
                None
            }
        }
    }

    /// Success unless something was noted.
    pub(crate) fn finish(self) -> Result<i32> {
        self.0.map_or(Ok(0), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stays_first_and_keeps_its_hint() {
        let failure = Failure::from(Error::not_found("container \"web\""))
            .hint("gantry ps lists the containers")
            .hint("not this one")
            .and(Error::unavailable("remove snapshot \"web\""));
        assert_eq!(
            failure.lines(),
            [
                "gantry: container \"web\": not found",
                "hint: gantry ps lists the containers",
                "gantry: remove snapshot \"web\": unavailable"
            ]
        );
    }

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        assert_eq!(
            one_line("create task: runc:\n  no such file\u{7}\n\n"),
            "create task: runc:; no such file "
        );
    }
}
