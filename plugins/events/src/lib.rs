//! The event exchange: publish, forward, subscribe.
#![forbid(unsafe_code)]
