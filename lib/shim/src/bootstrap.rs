//! How a daemon and a starting shim agree: what it is told on standard input, what it answers on standard output.
//!
//! The new protocol is one message each way. The old one is flags and environment, runtime options on standard input,
//! and a line of text as answer. A daemon may send both at once, and options of the old protocol can happen to decode
//! as the new one's message, so that the new one is taken only if it names the same instance as the command line.

use std::path::PathBuf;

use gantry_api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use gantry_core::{Any, Result};
use prost::Message;

use crate::command_line::Arguments;
use crate::convert;
use crate::publisher::Daemon;

/// The most that is read from standard input. Options are a few hundred bytes; extensions may be more.
pub const MAX_INPUT_BYTES: u64 = 4 << 20;

/// The version of the task service that the new protocol promises. Source: features I10.
const NEW_VERSION: i32 = 3;

/// What a start was told, in either protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whether the answer is to be the new protocol's message.
    pub new_protocol: bool,
    /// Runtime options, if any were given.
    pub options: Option<Any>,
    /// Where to make sockets; `None` means the usual place.
    pub socket_dir: Option<String>,
    /// The daemon's gRPC socket.
    pub grpc_address: String,
    /// The daemon's ttrpc socket.
    pub ttrpc_address: String,
    /// The daemon's program.
    pub publish_binary: PathBuf,
    /// Whether to log more.
    pub debug: bool,
    /// The highest version of the task service that the daemon of an old protocol knows; `None` before it said so.
    pub max_version: Option<i32>,
}

impl Told {
    /// Makes sense of the command line, the standard input and the environment.
    pub fn new(arguments: &Arguments, input: &[u8], env: impl Fn(&str) -> Option<String>) -> Told {
        let mut told = Told {
            new_protocol: false,
            options: None,
            socket_dir: None,
            // Source: features I04.
            grpc_address: match arguments.address.as_str() {
                "" => env("GRPC_ADDRESS").unwrap_or_default(),
                address => address.to_owned(),
            },
            ttrpc_address: env("TTRPC_ADDRESS").unwrap_or_default(),
            publish_binary: arguments.publish_binary.clone(),
            debug: arguments.debug,
            max_version: env("MAX_SHIM_VERSION").and_then(|version| version.parse().ok()),
        };
        match params(arguments, input) {
            Some(params) => told.take(params),
            // An old daemon sends the options, or nothing.
            None => {
                let any = prost_types::Any::decode(input).ok().filter(|any| !any.type_url.is_empty());
                told.options = any.map(convert::any_from_proto);
            }
        }
        told
    }

    fn take(&mut self, params: BootstrapParams) {
        self.new_protocol = true;
        self.debug |= params.log_level < 0;
        self.socket_dir = params.socket_dir.filter(|dir| !dir.is_empty());
        for (place, given) in [
            (&mut self.grpc_address, params.containerd_grpc_address),
            (&mut self.ttrpc_address, params.containerd_ttrpc_address),
        ] {
            if !given.is_empty() {
                *place = given;
            }
        }
        if !params.containerd_binary.is_empty() {
            self.publish_binary = params.containerd_binary.into();
        }
        let extensions = params.extensions.into_iter().filter_map(|extension| extension.value);
        self.options = extensions
            .map(convert::any_from_proto)
            .find(|any| any.type_name() == gantry_core::wire_names::TYPE_RUNC_OPTIONS);
    }

    /// Where the shim is to send its events.
    pub fn daemon(&self) -> Daemon {
        Daemon::find(&self.ttrpc_address, &self.grpc_address, self.publish_binary.clone())
    }

    /// The answer to a start: the shim listens at `address`.
    pub fn answer(&self, address: &str) -> Vec<u8> {
        if self.new_protocol {
            let result = BootstrapResult {
                version: NEW_VERSION,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..BootstrapResult::default()
            };
            return result.encode_to_vec();
        }
        match self.max_version {
            // Only a daemon that says that it knows version 3 may be told of it; to the others a bare address means 2.
            Some(version) if version >= NEW_VERSION => {
                serde_json::json!({"version": NEW_VERSION, "address": address, "protocol": "ttrpc"})
                    .to_string()
                    .into()
            }
            _ => address.to_owned().into(),
        }
    }
}

fn params(arguments: &Arguments, input: &[u8]) -> Option<BootstrapParams> {
    let params = BootstrapParams::decode(input).ok()?;
    (params.instance_id == arguments.id && params.namespace == arguments.namespace).then_some(params)
}

/// The most that a daemon reads of a shim's answer.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A shim's answer to its start, in any of the forms that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The version of the task service.
    pub version: i32,
    /// Where the shim listens.
    pub address: String,
    /// `ttrpc` or `grpc`.
    pub protocol: String,
}

impl Answer {
    /// Reads what a shim printed: the new message, JSON, or a bare address. Source: features I03.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none of these.
    pub fn parse(output: &[u8]) -> Result<Answer> {
        #[derive(serde::Deserialize)]
        struct Json {
            version: i32,
            address: String,
            protocol: String,
        }
        let plausible = |address: &str| address.starts_with('/') || address.contains("://");
        if let Ok(Json { version, address, protocol }) = serde_json::from_slice(output) {
            return Ok(Answer { version, address, protocol });
        }
        if let Ok(result) = BootstrapResult::decode(output)
            && result.version > 0
            && plausible(&result.address)
        {
            return Ok(Answer {
                version: result.version,
                address: result.address,
                protocol: result.protocol,
            });
        }
        match std::str::from_utf8(output).map(str::trim) {
            Ok(address) if plausible(address) && !address.contains(char::is_whitespace) => {
                Ok(Answer { version: 2, address: address.to_owned(), protocol: "ttrpc".to_owned() })
            }
            _ => Err(gantry_core::Error::invalid_argument(format!(
                "a shim's answer: {:?}",
                String::from_utf8_lossy(&output[..output.len().min(200)])
            ))),
        }
    }
}

/// What a daemon writes to the standard input of a starting shim in the new protocol.
pub fn params_to_bytes(params: &BootstrapParams) -> Vec<u8> {
    params.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::containerd::runc::v1::Options;
    use gantry_api::containerd::runtime::bootstrap::v1::Extension;

    fn arguments() -> Arguments {
        Arguments {
            namespace: "ns".into(),
            id: "web".into(),
            address: "/c.sock".into(),
            ..Arguments::default()
        }
    }

    fn options() -> prost_types::Any {
        let options = Options { binary_name: "crun".into(), ..Options::default() };
        prost_types::Any {
            type_url: gantry_core::wire_names::TYPE_RUNC_OPTIONS.into(),
            value: options.encode_to_vec(),
        }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_new_protocol_is_taken_when_it_names_the_same_instance() {
        let mut params = BootstrapParams {
            instance_id: "web".into(),
            namespace: "ns".into(),
            containerd_ttrpc_address: "/c.sock.ttrpc".into(),
            extensions: vec![Extension { value: Some(options()) }],
            socket_dir: Some("/run/s".into()),
            log_level: -4,
            ..BootstrapParams::default()
        };
        let told = Told::new(&arguments(), &params.encode_to_vec(), nothing);
        assert!(told.new_protocol && told.debug);
        assert_eq!((told.ttrpc_address.as_str(), told.grpc_address.as_str()), ("/c.sock.ttrpc", "/c.sock"));
        assert_eq!((told.socket_dir.as_deref(), told.options.is_some()), (Some("/run/s"), true));
        let answer = Answer::parse(&told.answer("unix:///s")).unwrap();
        assert_eq!(answer, Answer { version: 3, address: "unix:///s".into(), protocol: "ttrpc".into() });

        params.namespace = "other".into();
        assert!(!Told::new(&arguments(), &params.encode_to_vec(), nothing).new_protocol);
    }

    #[test]
    fn options_of_the_old_protocol_are_not_mistaken() {
        // An Any decodes as BootstrapParams: both begin with a string and go on with bytes.
        let input = options().encode_to_vec();
        let env = |name: &str| (name == "TTRPC_ADDRESS").then(|| "/t.sock".to_owned());
        let told = Told::new(&arguments(), &input, env);
        assert!(!told.new_protocol);
        assert_eq!(told.options.as_ref().unwrap().type_name(), "containerd.runc.v1.Options");
        assert_eq!(told.daemon(), Daemon::Socket("/t.sock".into()));
        assert_eq!(told.answer("unix:///s"), b"unix:///s");
        for garbage in [&b""[..], b"\xff\xff\xff", b"hello"] {
            let told = Told::new(&arguments(), garbage, nothing);
            assert!(!told.new_protocol && told.options.is_none());
        }
    }

    #[test]
    fn every_form_of_answer_is_understood() {
        let bare = Answer::parse(b"unix:///run/s/x\n").unwrap();
        assert_eq!(
            (bare.version, bare.address.as_str(), bare.protocol.as_str()),
            (2, "unix:///run/s/x", "ttrpc")
        );
        let json = Answer::parse(br#"{"version":3,"address":"unix:///y","protocol":"grpc"}"#).unwrap();
        assert_eq!((json.version, json.protocol.as_str()), (3, "grpc"));
        let env = |name: &str| (name == "MAX_SHIM_VERSION").then(|| "3".to_owned());
        let told = Told::new(&arguments(), b"", env);
        assert_eq!(Answer::parse(&told.answer("/z")).unwrap().version, 3);
        for bad in [&b""[..], b"panic: oh no", b"\xff\xfe", b"{}"] {
            assert!(Answer::parse(bad).is_err(), "{bad:?}");
        }
    }
}
