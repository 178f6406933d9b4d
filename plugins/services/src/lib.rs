//! The behaviour behind each API: store, then events. One file per noun.
#![forbid(unsafe_code)]
