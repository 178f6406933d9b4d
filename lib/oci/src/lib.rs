//! OCI image and runtime specifications; building a spec.
#![forbid(unsafe_code)]
