//! Sandboxes.

use gantry_api::containerd::types::{Sandbox as Proto, sandbox::Runtime};
use gantry_core::containers::ContainerRuntime;
use gantry_core::sandboxes::Sandbox;
use gantry_core::{Result, SandboxId};

use crate::call::present;
use crate::{any, timestamp};

pub(crate) fn from_proto(sandbox: Option<Proto>) -> Result<Sandbox> {
    let sandbox = present(sandbox, "sandbox")?;
    let runtime = present(sandbox.runtime, "sandbox.runtime")?;
    Ok(Sandbox {
        id: SandboxId::parse(sandbox.sandbox_id)?,
        labels: sandbox.labels,
        runtime: ContainerRuntime { name: runtime.name, options: runtime.options.map(any::from_proto) },
        spec: sandbox.spec.map(any::from_proto),
        sandboxer: sandbox.sandboxer,
        created_at: timestamp::or_epoch(sandbox.created_at),
        updated_at: timestamp::or_epoch(sandbox.updated_at),
        extensions: sandbox.extensions.into_iter().map(|(k, v)| (k, any::from_proto(v))).collect(),
    })
}

pub(crate) fn to_proto(sandbox: Sandbox) -> Proto {
    Proto {
        sandbox_id: sandbox.id.into_string(),
        runtime: Some(Runtime {
            name: sandbox.runtime.name,
            options: sandbox.runtime.options.map(any::to_proto),
        }),
        spec: sandbox.spec.map(any::to_proto),
        labels: sandbox.labels,
        created_at: Some(timestamp::to_proto(sandbox.created_at)),
        updated_at: Some(timestamp::to_proto(sandbox.updated_at)),
        extensions: sandbox.extensions.into_iter().map(|(k, v)| (k, any::to_proto(v))).collect(),
        sandboxer: sandbox.sandboxer,
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn what_is_absent_is_named() {
        assert_eq!(from_proto(None).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let aimless = Proto { sandbox_id: "s".into(), ..Proto::default() };
        let error = from_proto(Some(aimless)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("sandbox.runtime"), "{error}");
    }
}
