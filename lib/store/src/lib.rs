//! The database file: one writer with group commit, readers that never wait.
//!
//! A [`Store`] owns one SQLite file in WAL mode with `synchronous=FULL`. All writes are closures that one thread runs, those
//! that wait together in one transaction; nobody is answered before that transaction is durable. Reads run on a pool of
//! read-only connections, each in a snapshot of its own, on the blocking pool.
//!
//! What the tables mean is left to the caller, who gives the [`Migration`]s. The first type to read is [`Store`]; closures see
//! the database through [`Reading`] and [`Writing`].
#![forbid(unsafe_code)]

mod access;
mod boot;
mod fault;
mod lock;
mod migration;
mod readers;
mod room;
mod store;
mod writer;

pub use access::{Reading, Row, Writing};
pub use boot::{Boot, LastStop};
pub use lock::StoreLock;
pub use migration::Migration;
pub use rusqlite::types::{FromSql, ToSql, Value};
pub use rusqlite::{Params, params};
pub use store::{ChangeHook, Store, StoreOptions};
