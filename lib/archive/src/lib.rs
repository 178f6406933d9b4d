//! Layer tar streams: reading and writing tar, compression, whiteouts, and extraction that cannot leave its root.
//!
//! Everything here is blocking code over [`std::io::Read`] and [`std::io::Write`], meant for a blocking pool; it stops
//! soon after the [`gantry_core::Context`] it was given is cancelled. Nothing here knows a content store, a snapshot
//! or a mount: those are the callers' business.
//!
//! Start at [`apply_layer`] (a compressed layer into a directory, with its diff id) and at [`write_changes`] and
//! [`write_upper`] (a directory tree into a layer). [`TarReader`] and [`TarWriter`] serve archives of other kinds too.
#![forbid(unsafe_code)]

mod apply;
mod attributes;
mod changes;
mod compression;
mod directory;
mod entry;
mod failure;
mod header;
mod layer_stream;
mod layer_writer;
mod lower;
mod name;
mod node;
mod opaque;
mod pax;
mod reader;
mod removal;
mod sparse;
mod tree;
mod upper;
mod whiteout;
mod writer;
mod xattr;

pub use apply::{Applied, AppliedLayer, MissingLink, Target, apply, apply_layer};
pub use changes::write_changes;
pub use compression::{Compression, Compressor, Decompressor};
pub use entry::{Entry, EntryKind, Timestamp};
pub use layer_stream::{Cancellable, LayerStream};
pub use layer_writer::{Layer, WriteLayer};
pub use lower::{Lowers, OverlayXattrs};
pub use reader::TarReader;
pub use upper::write_upper;
pub use writer::TarWriter;
