//! The published wire: protocol buffers of containerd's gRPC and ttrpc services.
#![forbid(unsafe_code)]
