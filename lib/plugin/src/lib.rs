//! Plugin kinds, dependency order and a typed init context.
//!
//! A program lists its [`Plugin`]s in plain sight and hands them to [`load`], which starts each after the kinds it
//! requires. One that fails stops nothing but those that ask for what it would have put. The first type to read is
//! [`Plugin`]; what a plugin sees while it starts is [`InitContext`].
#![forbid(unsafe_code)]

mod graph;
mod init;
mod kind;

pub use graph::order;
pub use init::{Environment, InitContext, InitError, Loaded, LoadedPlugin, load};
pub use kind::PluginKind;

/// One part of the daemon.
pub struct Plugin {
    /// What it is.
    pub kind: PluginKind,
    /// Its id within the kind.
    pub id: &'static str,
    /// The kinds that are started before it. Published by introspection.
    pub requires: &'static [PluginKind],
    /// Starts it: takes what it needs from the context and puts what it offers.
    pub init: fn(&mut InitContext<'_>) -> Result<(), InitError>,
}

impl Plugin {
    /// The name that configuration files use: `kind.id`.
    pub fn uri(&self) -> String {
        format!("{}.{}", self.kind, self.id)
    }
}
