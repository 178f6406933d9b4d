//! Plugin kinds, dependency order and a typed init context.
#![forbid(unsafe_code)]
