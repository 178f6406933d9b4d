//! Tasks and processes.

use gantry_api::containerd::services::tasks::v1::DeleteResponse;
use gantry_api::containerd::types::Metric as ProtoMetric;
use gantry_api::containerd::v1::types::{Process, ProcessInfo as ProtoInfo, Status};
use gantry_core::tasks::{ExitRecord, Metric, ProcessInfo, ProcessRecord, TaskStatus};

use crate::{any, timestamp};

pub(crate) fn process_to_proto(process: ProcessRecord) -> Process {
    let status = match process.status {
        TaskStatus::Unknown => Status::Unknown,
        TaskStatus::Created => Status::Created,
        TaskStatus::Running => Status::Running,
        TaskStatus::Stopped => Status::Stopped,
        TaskStatus::Paused => Status::Paused,
        TaskStatus::Pausing => Status::Pausing,
    };
    // Source: observed: for the init process only `id` is set.
    let init = process.id == process.container_id;
    Process {
        container_id: if init { String::new() } else { process.container_id },
        id: process.id,
        pid: process.pid,
        status: status.into(),
        stdin: process.io.stdin,
        stdout: process.io.stdout,
        stderr: process.io.stderr,
        terminal: process.io.terminal,
        exit_status: process.exit_status,
        exited_at: Some(timestamp::or_go_zero(process.exited_at)),
    }
}

pub(crate) fn exit_to_proto(exit: ExitRecord) -> DeleteResponse {
    DeleteResponse {
        id: exit.id,
        pid: exit.pid,
        exit_status: exit.status,
        exited_at: Some(timestamp::to_proto(exit.exited_at)),
    }
}

pub(crate) fn info_to_proto(info: ProcessInfo) -> ProtoInfo {
    ProtoInfo { pid: info.pid, info: info.info.map(any::to_proto) }
}

pub(crate) fn metric_to_proto(metric: Metric) -> ProtoMetric {
    ProtoMetric {
        timestamp: Some(timestamp::to_proto(metric.timestamp)),
        id: metric.id,
        data: metric.data.map(any::to_proto),
    }
}
