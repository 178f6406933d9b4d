//! The nouns of gantry: types, traits, errors, context and filters. No I/O.
//!
//! Each noun has one file with its types and its trait. Storage (`plugins/metadata`), behaviour
//! (`plugins/services`) and the remote end (`rpc`) implement the same trait, so a caller cannot tell
//! whether a call crosses a socket. The first types to read are [`Context`] and [`Error`], then
//! [`containers::ContainerStore`].
#![forbid(unsafe_code)]

pub mod any;
pub mod collection;
pub mod containers;
pub mod content;
pub mod context;
pub mod descriptor;
pub mod diff;
pub mod error;
pub mod events;
pub mod field_mask;
pub mod filters;
pub mod identifiers;
pub mod images;
pub mod introspection;
pub mod labels;
pub mod leases;
pub mod log_limits;
pub mod maintenance;
pub mod mount;
pub mod mounts;
pub mod namespaces;
pub mod platforms;
pub mod sandbox_controller;
pub mod sandboxes;
pub mod snapshots;
pub mod streaming;
pub mod tasks;
pub mod time;
pub mod wire_names;

pub use any::Any;
pub use context::Context;
pub use descriptor::Descriptor;
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use identifiers::{ContainerId, Digest, ExecId, IngestRef, LeaseId, Namespace, SandboxId, SnapshotKey};
pub use labels::Labels;

/// A list whose items are read as they are asked for: it owns all it needs and holds no transaction
/// between items.
pub type ItemStream<T> = futures_util::stream::BoxStream<'static, Result<T>>;
