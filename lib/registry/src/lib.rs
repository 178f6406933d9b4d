//! Registry client: resolve, fetch, push; hosts configuration.
#![forbid(unsafe_code)]
