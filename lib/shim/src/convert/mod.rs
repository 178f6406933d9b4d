//! Between our types and the shim protocol's, once for everybody who speaks it: the shim and the daemon's runtime.
//!
//! Versions 2 and 3 of the task service have the same messages, so that one set serves both.

mod events;
mod tasks;

use std::time::SystemTime;

use gantry_api::containerd::types as wire;
use gantry_core::mount::Mount;
use gantry_core::{Any, time};

pub use events::{envelope_from_proto, envelope_to_proto, event_from_any, event_to_any};
pub use tasks::*;

/// An opaque payload, for the wire.
pub fn any_to_proto(any: Any) -> prost_types::Any {
    prost_types::Any { type_url: any.type_url, value: any.value.into() }
}

/// An opaque payload, from the wire.
pub fn any_from_proto(any: prost_types::Any) -> Any {
    Any { type_url: any.type_url, value: any.value.into() }
}

/// A point in time, for the wire. "Not yet" is Go's zero time, as clients know it.
pub fn time_to_proto(at: Option<SystemTime>) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = at.map_or((time::GO_ZERO_SECONDS, 0), time::to_parts);
    Some(prost_types::Timestamp { seconds, nanos })
}

/// A point in time, from the wire; absent, impossible and Go's zero time mean "not yet".
pub fn time_from_proto(at: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    let at = at.filter(|at| at.seconds != time::GO_ZERO_SECONDS)?;
    time::from_parts(at.seconds, at.nanos)
}

/// A mount, for the wire.
pub fn mount_to_proto(mount: Mount) -> wire::Mount {
    wire::Mount { r#type: mount.kind, source: mount.source, target: mount.target, options: mount.options }
}

/// A mount, from the wire.
pub fn mount_from_proto(mount: wire::Mount) -> Mount {
    Mount { kind: mount.r#type, source: mount.source, target: mount.target, options: mount.options }
}

#[cfg(test)]
mod tests;
