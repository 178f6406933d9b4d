//! The process that stays beside a container.
#![forbid(unsafe_code)]
fn main() {}
