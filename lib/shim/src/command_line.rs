//! The shim's command line: Go-style flags, which may begin with one dash or two.

use std::ffi::OsString;
use std::path::PathBuf;

use gantry_core::{Error, Result};

/// What the shim was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start, or find, the shim that serves a container, and print its address.
    Start,
    /// Clean up after a container whose shim is gone.
    Delete,
    /// No command: serve. This is how `start` runs the shim itself.
    Serve,
    /// `-v`: print the version.
    Version,
    /// `-info`: print what the runtime says about itself.
    Info,
}

/// The parsed command line. Source: features I02.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What to do.
    pub command: Command,
    /// `-namespace`: the container's namespace.
    pub namespace: String,
    /// `-id`: the container's id.
    pub id: String,
    /// `-address`: the daemon's gRPC socket.
    pub address: String,
    /// `-publish-binary`: a program that publishes an event from its standard input.
    pub publish_binary: PathBuf,
    /// `-bundle`: the bundle's directory; by default the working directory.
    pub bundle: PathBuf,
    /// `-socket`: where to listen, in place of the usual place.
    pub socket: PathBuf,
    /// `-debug`: log more.
    pub debug: bool,
    /// `-debug-socket`: accepted; there is nothing to serve on it.
    pub debug_socket: PathBuf,
}

impl Default for Arguments {
    fn default() -> Self {
        Arguments {
            command: Command::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            publish_binary: PathBuf::new(),
            bundle: PathBuf::new(),
            socket: PathBuf::new(),
            debug: false,
            debug_socket: PathBuf::new(),
        }
    }
}

impl Arguments {
    /// Parses what follows the program's name.
    ///
    /// # Errors
    /// `InvalidArgument` for a flag or command that does not exist, or a flag without its value.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Arguments> {
        let mut parsed = Arguments::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let text = text(arg)?;
            match text.strip_prefix("--").or_else(|| text.strip_prefix('-')) {
                Some(flag) if !flag.is_empty() => parsed.flag(flag, &mut args)?,
                _ => parsed.command(&text)?,
            }
        }
        Ok(parsed)
    }

    fn command(&mut self, text: &str) -> Result<()> {
        let command = match text {
            "start" => Command::Start,
            "delete" => Command::Delete,
            _ => return Err(Error::invalid_argument(format!("command {text:?}"))),
        };
        // Asking for the version or the info wins over a command, as in the original.
        if self.command == Command::Serve {
            self.command = command;
        }
        Ok(())
    }

    fn flag(&mut self, flag: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<()> {
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if let "debug" | "v" | "version" | "info" = name {
            let on = given
                .is_none_or(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
            match name {
                "debug" => self.debug = on,
                "info" if on => self.command = Command::Info,
                _ if on => self.command = Command::Version,
                _ => {}
            }
            return Ok(());
        }
        let place: &mut dyn FnMut(String) = match name {
            "namespace" => &mut |value| self.namespace = value,
            "id" => &mut |value| self.id = value,
            "address" => &mut |value| self.address = value,
            "publish-binary" => &mut |value| self.publish_binary = value.into(),
            "bundle" => &mut |value| self.bundle = value.into(),
            "socket" => &mut |value| self.socket = value.into(),
            "debug-socket" => &mut |value| self.debug_socket = value.into(),
            _ => return Err(Error::invalid_argument(format!("flag provided but not defined: -{name}"))),
        };
        let value = match given {
            Some(value) => value,
            None => {
                let next = rest.next();
                text(
                    next.ok_or_else(|| Error::invalid_argument(format!("flag needs an argument: -{name}")))?,
                )?
            }
        };
        place(value);
        Ok(())
    }

    /// Checks that namespace and id are there and well formed: they become parts of paths.
    ///
    /// # Errors
    /// `InvalidArgument` naming the one that is not.
    pub fn check_names(&self) -> Result<()> {
        use gantry_core::ResultExt;
        gantry_core::identifiers::validate_identifier(&self.namespace).context("shim namespace")?;
        gantry_core::identifiers::validate_identifier(&self.id).context("shim id")
    }
}

fn text(arg: OsString) -> Result<String> {
    arg.into_string().map_err(|arg| Error::invalid_argument(format!("argument {arg:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Arguments> {
        Arguments::parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_daemons_command_line_is_understood() {
        let line =
            "-namespace moby -address /run/c.sock -publish-binary /usr/bin/containerd -id web -debug start";
        let parsed = parse(line).unwrap();
        assert_eq!(parsed.command, Command::Start);
        assert_eq!((parsed.namespace.as_str(), parsed.id.as_str(), parsed.debug), ("moby", "web", true));
        assert_eq!(parsed.publish_binary, PathBuf::from("/usr/bin/containerd"));
    }

    #[test]
    fn two_dashes_and_equal_signs_work_too() {
        let parsed = parse("--namespace=a --id b --bundle=/x=y delete").unwrap();
        assert_eq!((parsed.command, parsed.bundle), (Command::Delete, PathBuf::from("/x=y")));
        assert!(!parse("-debug=false").unwrap().debug);
    }

    #[test]
    fn version_and_info_win_over_a_command() {
        assert_eq!(parse("-v start").unwrap().command, Command::Version);
        assert_eq!(parse("-info").unwrap().command, Command::Info);
        assert_eq!(parse("").unwrap().command, Command::Serve);
    }

    #[test]
    fn unknown_flags_and_commands_are_refused() {
        for bad in ["-bogus x", "restart", "-id", "-namespace"] {
            assert_eq!(parse(bad).unwrap_err().kind(), gantry_core::ErrorKind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused() {
        for (namespace, id) in [("a/../b", "x"), ("a", "../x"), ("", "x"), ("a", "")] {
            let arguments = Arguments { namespace: namespace.into(), id: id.into(), ..Arguments::default() };
            assert!(arguments.check_names().is_err());
        }
    }
}
