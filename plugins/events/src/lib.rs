//! The event exchange: publish, forward, subscribe.
//!
//! [`EventExchange`] hands every event to the queue of every subscriber whose filters match, at once and without waiting.
//! A subscriber that falls behind is ended. Nothing is kept: who subscribes later hears only what comes later.
#![forbid(unsafe_code)]

mod exchange;
mod subscription;

pub use exchange::EventExchange;
