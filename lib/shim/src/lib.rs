//! What a shim is made of: task service, reaper, publisher; and the shim protocol's conversions.
#![forbid(unsafe_code)]
