//! Options of the runtime `io.containerd.runc.v2`.

use gantry_core::wire_names::TYPE_RUNC_OPTIONS;
use gantry_core::{Any, Error, Result};
use prost::Message as _;

/// How the shim calls its OCI runtime. The default leaves everything to the shim.
///
/// Source: `containerd.runc.v1.Options` of the published API, for numbers and types.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuncOptions {
    /// Keep the root by `chroot` rather than `pivot_root`.
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    /// Make no session keyring.
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    /// The shim's own cgroup.
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    /// The owner of stdio.
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    /// The group of stdio.
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    /// The runtime's binary: a name to be looked up, or a path.
    #[prost(string, tag = "6")]
    pub binary_name: String,
    /// Where the runtime keeps its state.
    #[prost(string, tag = "7")]
    pub root: String,
    /// Whether systemd makes the cgroup.
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
}

impl RuncOptions {
    /// As a container's record has them.
    pub fn to_any(&self) -> Any {
        Any::new(TYPE_RUNC_OPTIONS, self.encode_to_vec())
    }

    /// From a container's record.
    ///
    /// # Errors
    /// `InvalidArgument` if it is of another type or cannot be decoded.
    pub fn from_any(any: &Any) -> Result<Self> {
        if any.type_name() != TYPE_RUNC_OPTIONS {
            return Err(Error::invalid_argument(format!("runtime options of type {:?}", any.type_url)));
        }
        RuncOptions::decode(any.value.clone())
            .map_err(|error| Error::invalid_argument(format!("runtime options: {error}")))
    }
}
