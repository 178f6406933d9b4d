//! `-info`: what the shim and its OCI runtime say about themselves.

use gantry_api::containerd::types::{RuntimeInfo, RuntimeVersion};
use gantry_core::{Result, wire_names};
use gantry_runtime::select;
use prost::Message;

use crate::{bundle, convert, runtime};

/// Type of the OCI features document. Source: containerd's registered name of `features.Features`.
const TYPE_FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The answer to `-info`, given the runtime options (an `Any`) that were on standard input.
///
/// # Errors
/// `InvalidArgument` or `Unknown` for options that are not understood; `NotFound` if their binary is not installed.
pub async fn info(input: &[u8]) -> Result<RuntimeInfo> {
    let given = prost_types::Any::decode(input).ok().filter(|any| !any.type_url.is_empty());
    let any = given.clone().map(convert::any_from_proto);
    let options = bundle::options_from_any(any.as_ref())?;
    // There is no bundle: the runtime that the options alone mean.
    let config = runtime::config(&options, "default");
    let runtime = select::for_existing(&config, std::path::Path::new("/"))?;
    let features = runtime.features().await?;
    let features = (!features.is_empty())
        .then(|| prost_types::Any { type_url: TYPE_FEATURES.to_owned(), value: features });
    Ok(RuntimeInfo {
        name: wire_names::SHIM_RUNC_BINARY.to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: given,
        features,
        // Not containerd's: which OCI runtime answered.
        annotations: [("io.gantry.oci-runtime".to_owned(), runtime.name().to_owned())].into(),
    })
}
