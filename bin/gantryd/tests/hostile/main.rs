//! Bad input on the daemon's sockets: each test ends with the same daemon, answering, no larger than it was.
//!
//! [`watched::Watched`] is the daemon and what is looked at; [`schema`] knows every method and field of the wire, so that none is
//! forgotten; [`wire::Client`] speaks HTTP/2 and says what no gRPC client would.
#![forbid(unsafe_code)]

mod connections;
mod directories;
mod fields;
mod http2;
mod messages;
mod schema;
mod shims;
mod streams;
mod tricks;
mod watched;
mod wire;
