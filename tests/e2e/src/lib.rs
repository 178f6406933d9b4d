//! Whole-system tests against a running daemon.
#![forbid(unsafe_code)]
