//! OCI runtimes: by name (runc, crun, runsc) and built in.
#![forbid(unsafe_code)]
