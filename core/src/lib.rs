//! The nouns of gantry: types, traits, errors, context and filters. No I/O.
#![forbid(unsafe_code)]
pub mod error;
pub use error::{Error, ErrorKind, Result, ResultExt};
