//! Tasks and processes.

use std::time::UNIX_EPOCH;

use gantry_api::containerd::task::v3 as wire;
use gantry_api::containerd::v1::types::{ProcessInfo as WireProcessInfo, Status};
use gantry_core::mount::Mount;
use gantry_core::tasks::{ExecTask, ExitRecord, ProcessInfo, ProcessRecord, TaskIo, TaskStatus};
use gantry_core::{Any, Error, ExecId, Result};

use super::{any_from_proto, any_to_proto, mount_from_proto, mount_to_proto, time_from_proto, time_to_proto};

/// What makes a task, as a shim is told: the daemon's choices are made, the bundle is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShimCreate {
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub bundle: String,
    /// The root file system's mounts; empty means: it is there already.
    pub rootfs: Vec<Mount>,
    /// Input and output of the init process.
    pub io: TaskIo,
    /// A directory with a checkpoint to restore from; may be empty.
    pub checkpoint: String,
    /// The checkpoint's parent; may be empty.
    pub parent_checkpoint: String,
    /// Options for the runtime.
    pub options: Option<Any>,
}

/// A create, for the wire.
pub fn create_to_proto(new: ShimCreate) -> wire::CreateTaskRequest {
    wire::CreateTaskRequest {
        id: new.id,
        bundle: new.bundle,
        rootfs: new.rootfs.into_iter().map(mount_to_proto).collect(),
        terminal: new.io.terminal,
        stdin: new.io.stdin,
        stdout: new.io.stdout,
        stderr: new.io.stderr,
        checkpoint: new.checkpoint,
        parent_checkpoint: new.parent_checkpoint,
        options: new.options.map(any_to_proto),
    }
}

/// A create, from the wire.
pub fn create_from_proto(new: wire::CreateTaskRequest) -> ShimCreate {
    ShimCreate {
        id: new.id,
        bundle: new.bundle,
        rootfs: new.rootfs.into_iter().map(mount_from_proto).collect(),
        io: TaskIo { stdin: new.stdin, stdout: new.stdout, stderr: new.stderr, terminal: new.terminal },
        checkpoint: new.checkpoint,
        parent_checkpoint: new.parent_checkpoint,
        options: new.options.map(any_from_proto),
    }
}

/// An exec, for the wire.
pub fn exec_to_proto(new: ExecTask) -> wire::ExecProcessRequest {
    wire::ExecProcessRequest {
        id: new.container_id,
        exec_id: new.exec_id.into_string(),
        terminal: new.io.terminal,
        stdin: new.io.stdin,
        stdout: new.io.stdout,
        stderr: new.io.stderr,
        spec: Some(any_to_proto(new.spec)),
    }
}

/// An exec, from the wire.
///
/// # Errors
/// `InvalidArgument` if the exec id is no identifier or there is no spec.
pub fn exec_from_proto(new: wire::ExecProcessRequest) -> Result<ExecTask> {
    let spec = new.spec.ok_or_else(|| Error::invalid_argument("exec spec is missing"))?;
    Ok(ExecTask {
        container_id: new.id,
        exec_id: ExecId::parse(new.exec_id)?,
        io: TaskIo { stdin: new.stdin, stdout: new.stdout, stderr: new.stderr, terminal: new.terminal },
        spec: any_from_proto(spec),
    })
}

/// A state, for the wire.
pub fn status_to_proto(status: TaskStatus) -> Status {
    match status {
        TaskStatus::Unknown => Status::Unknown,
        TaskStatus::Created => Status::Created,
        TaskStatus::Running => Status::Running,
        TaskStatus::Stopped => Status::Stopped,
        TaskStatus::Paused => Status::Paused,
        TaskStatus::Pausing => Status::Pausing,
    }
}

/// A state, from the wire; numbers of a later version are unknown.
pub fn status_from_proto(status: i32) -> TaskStatus {
    match Status::try_from(status) {
        Ok(Status::Created) => TaskStatus::Created,
        Ok(Status::Running) => TaskStatus::Running,
        Ok(Status::Stopped) => TaskStatus::Stopped,
        Ok(Status::Paused) => TaskStatus::Paused,
        Ok(Status::Pausing) => TaskStatus::Pausing,
        Ok(Status::Unknown) | Err(_) => TaskStatus::Unknown,
    }
}

/// A process's state, for the wire. `record.id` is the exec id of an exec and the container's id otherwise.
pub fn state_to_proto(record: ProcessRecord, bundle: String) -> wire::StateResponse {
    let exec_id = if record.id == record.container_id { String::new() } else { record.id.clone() };
    wire::StateResponse {
        id: record.id,
        bundle,
        pid: record.pid,
        status: status_to_proto(record.status).into(),
        stdin: record.io.stdin,
        stdout: record.io.stdout,
        stderr: record.io.stderr,
        terminal: record.io.terminal,
        exit_status: record.exit_status,
        exited_at: time_to_proto(record.exited_at),
        exec_id,
    }
}

/// A process's state, from the wire.
pub fn state_from_proto(container_id: &str, state: wire::StateResponse) -> ProcessRecord {
    ProcessRecord {
        container_id: container_id.to_owned(),
        id: state.id,
        pid: state.pid,
        status: status_from_proto(state.status),
        io: TaskIo {
            stdin: state.stdin,
            stdout: state.stdout,
            stderr: state.stderr,
            terminal: state.terminal,
        },
        exit_status: state.exit_status,
        exited_at: time_from_proto(state.exited_at),
    }
}

/// The answer to a delete, for the wire. A process that never ran has no end.
pub fn delete_to_proto(
    pid: u32,
    exit_status: u32,
    exited_at: Option<std::time::SystemTime>,
) -> wire::DeleteResponse {
    wire::DeleteResponse { pid, exit_status, exited_at: time_to_proto(exited_at) }
}

/// The answer to a delete, from the wire. A process that never ran ended at the epoch.
pub fn delete_from_proto(id: &str, deleted: wire::DeleteResponse) -> ExitRecord {
    ExitRecord {
        id: id.to_owned(),
        pid: deleted.pid,
        status: deleted.exit_status,
        exited_at: time_from_proto(deleted.exited_at).unwrap_or(UNIX_EPOCH),
    }
}

/// The answer to a wait, for the wire.
pub fn wait_to_proto(exit: &ExitRecord) -> wire::WaitResponse {
    wire::WaitResponse { exit_status: exit.status, exited_at: time_to_proto(Some(exit.exited_at)) }
}

/// The answer to a wait, from the wire.
pub fn wait_from_proto(waited: wire::WaitResponse) -> ExitRecord {
    ExitRecord {
        id: String::new(),
        pid: 0,
        status: waited.exit_status,
        exited_at: time_from_proto(waited.exited_at).unwrap_or(UNIX_EPOCH),
    }
}

/// A process in a cgroup, for the wire.
pub fn process_info_to_proto(info: ProcessInfo) -> WireProcessInfo {
    WireProcessInfo { pid: info.pid, info: info.info.map(any_to_proto) }
}

/// A process in a cgroup, from the wire.
pub fn process_info_from_proto(info: WireProcessInfo) -> ProcessInfo {
    ProcessInfo { pid: info.pid, info: info.info.map(any_from_proto) }
}
