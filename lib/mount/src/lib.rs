//! Mount lists: parsing options, mounting and unmounting them.
#![forbid(unsafe_code)]
