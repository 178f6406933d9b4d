//! What controllers of sandboxes are told and answer.

use gantry_api::containerd::services::sandbox::v1 as pb;
use gantry_core::sandbox_controller::{NewSandbox, SandboxExit, SandboxInstance, SandboxStatus};
use gantry_core::{Error, Result};

use crate::remote::answered;
use crate::sandboxes::convert;
use crate::{any, mount, timestamp};

pub(crate) fn new_from_proto(request: pb::ControllerCreateRequest) -> Result<NewSandbox> {
    let sandbox = convert::from_proto(request.sandbox)?;
    // Source: the original makes the sandbox of the record and tells of the id beside it; it never notices that they differ.
    if !request.sandbox_id.is_empty() && request.sandbox_id != sandbox.id.as_str() {
        let (outer, inner) = (request.sandbox_id, sandbox.id);
        return Err(Error::invalid_argument(format!(
            "sandbox_id {outer:?} and sandbox.sandbox_id \"{inner}\" differ"
        )));
    }
    Ok(NewSandbox {
        sandbox,
        rootfs: mount::from_proto(request.rootfs),
        options: request.options.map(any::from_proto),
        netns: request.netns_path,
        annotations: request.annotations,
    })
}

pub(crate) fn new_to_proto(new: NewSandbox, sandboxer: String) -> pb::ControllerCreateRequest {
    pb::ControllerCreateRequest {
        sandbox_id: new.sandbox.id.to_string(),
        rootfs: mount::to_proto(new.rootfs),
        options: new.options.map(any::to_proto),
        netns_path: new.netns,
        annotations: new.annotations,
        sandbox: Some(convert::to_proto(new.sandbox)),
        sandboxer,
    }
}

pub(crate) fn instance_from_proto(answer: pb::ControllerStartResponse) -> Result<SandboxInstance> {
    Ok(SandboxInstance {
        id: answer.sandbox_id,
        pid: answer.pid,
        created_at: timestamp::optional(answer.created_at, "created_at")?,
        labels: answer.labels,
        address: answer.address,
        version: answer.version,
        spec: answer.spec.map(any::from_proto),
    })
}

pub(crate) fn instance_to_proto(instance: SandboxInstance) -> pb::ControllerStartResponse {
    pb::ControllerStartResponse {
        sandbox_id: instance.id,
        pid: instance.pid,
        created_at: Some(timestamp::or_go_zero(instance.created_at)),
        labels: instance.labels,
        address: instance.address,
        version: instance.version,
        spec: instance.spec.map(any::to_proto),
    }
}

pub(crate) fn status_from_proto(answer: pb::ControllerStatusResponse) -> Result<SandboxStatus> {
    Ok(SandboxStatus {
        id: answer.sandbox_id,
        pid: answer.pid,
        state: answer.state,
        info: answer.info,
        created_at: timestamp::optional(answer.created_at, "created_at")?,
        exited_at: timestamp::optional(answer.exited_at, "exited_at")?,
        extra: answer.extra.map(any::from_proto).filter(|extra| !extra.type_url.is_empty()),
        address: answer.address,
        version: answer.version,
    })
}

pub(crate) fn status_to_proto(status: SandboxStatus) -> pb::ControllerStatusResponse {
    pb::ControllerStatusResponse {
        sandbox_id: status.id,
        pid: status.pid,
        state: status.state,
        info: status.info,
        created_at: Some(timestamp::or_go_zero(status.created_at)),
        exited_at: Some(timestamp::or_go_zero(status.exited_at)),
        // Source: the original's answer has an empty one rather than none.
        extra: Some(status.extra.map(any::to_proto).unwrap_or_default()),
        address: status.address,
        version: status.version,
    }
}

pub(crate) fn exit_from_proto(answer: pb::ControllerWaitResponse) -> Result<SandboxExit> {
    let exited_at = timestamp::optional(answer.exited_at, "exited_at")?;
    Ok(SandboxExit { status: answer.exit_status, exited_at: answered(exited_at, "exited_at")? })
}

pub(crate) fn exit_to_proto(exit: SandboxExit) -> pb::ControllerWaitResponse {
    pb::ControllerWaitResponse {
        exit_status: exit.status,
        exited_at: Some(timestamp::to_proto(exit.exited_at)),
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::containerd::types::{Sandbox, sandbox::Runtime};
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn two_ids_must_be_the_same() {
        let sandbox = |id: &str| {
            Some(Sandbox { sandbox_id: id.into(), runtime: Some(Runtime::default()), ..Default::default() })
        };
        let request = |outer: &str, sandbox| pb::ControllerCreateRequest {
            sandbox_id: outer.into(),
            sandbox,
            ..Default::default()
        };
        assert_eq!(new_from_proto(request("", sandbox("a"))).unwrap().sandbox.id.as_str(), "a");
        assert_eq!(new_from_proto(request("a", sandbox("a"))).unwrap().sandbox.id.as_str(), "a");
        for (outer, inner) in [("b", sandbox("a")), ("a", None), ("", sandbox("../a")), ("a", sandbox(""))] {
            let refused = new_from_proto(request(outer, inner)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
        }
    }

    #[test]
    fn what_never_ended_has_gos_zero_on_the_wire_and_no_time_here() {
        let status = SandboxStatus { id: "a".into(), ..Default::default() };
        let proto = status_to_proto(status.clone());
        assert_eq!(proto.exited_at, Some(timestamp::GO_ZERO));
        assert_eq!(status_from_proto(proto).unwrap(), status);
    }
}
