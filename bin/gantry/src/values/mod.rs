//! Values of flags: read once, when arguments are.

pub(crate) mod environment;
pub(crate) mod mounts;
pub(crate) mod pairs;
pub(crate) mod signal_names;
pub(crate) mod sizes;
