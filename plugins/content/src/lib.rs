//! Content store on a local file system, in containerd's layout.
//!
//! ```text
//! <root>/blobs/<algorithm>/<hex>                       immutable, mode 0444
//! <root>/ingest/<sha256 of ref>/{data,ref,startedat,updatedat,total}
//! ```
//!
//! A blob appears by one rename, after its bytes are on disk: whenever the machine stops there is either the ingest or
//! the blob. Where the file system has fs-verity, the kernel checks blobs whenever they are read. Namespaces, leases and labels are left to the metadata: a context is only asked whether it was cancelled.
//! Start at [`LocalContent`].
#![forbid(unsafe_code)]

mod blobs;
mod blocking;
mod check;
mod hasher;
mod ingest;
mod locks;
mod reader;
mod store;
mod writer;

pub use store::LocalContent;
