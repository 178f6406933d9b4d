//! Namespaced transactional store of records; leases; garbage collection.
#![forbid(unsafe_code)]
