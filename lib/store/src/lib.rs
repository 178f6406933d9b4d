//! The database file: one writer with group commit, readers that never wait.
#![forbid(unsafe_code)]
