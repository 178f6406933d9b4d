//! Tasks and processes.

use gantry_api::containerd::services::tasks::v1::DeleteResponse;
use gantry_api::containerd::types::Metric as ProtoMetric;
use gantry_api::containerd::v1::types::{Process, ProcessInfo as ProtoInfo, Status};
use gantry_core::Result;
use gantry_core::tasks::{ExitRecord, Metric, ProcessInfo, ProcessRecord, TaskIo, TaskStatus};

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

pub(crate) fn metric_from_proto(metric: ProtoMetric) -> Metric {
    Metric {
        timestamp: timestamp::or_epoch(metric.timestamp),
        id: metric.id,
        data: metric.data.map(any::from_proto),
    }
}

pub(crate) fn process_from_proto(process: Process) -> Result<ProcessRecord> {
    let status = match process.status() {
        Status::Unknown => TaskStatus::Unknown,
        Status::Created => TaskStatus::Created,
        Status::Running => TaskStatus::Running,
        Status::Stopped => TaskStatus::Stopped,
        Status::Paused => TaskStatus::Paused,
        Status::Pausing => TaskStatus::Pausing,
    };
    Ok(ProcessRecord {
        container_id: process.container_id,
        id: process.id,
        pid: process.pid,
        status,
        io: TaskIo {
            stdin: process.stdin,
            stdout: process.stdout,
            stderr: process.stderr,
            terminal: process.terminal,
        },
        exit_status: process.exit_status,
        exited_at: timestamp::optional(process.exited_at, "exited_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_process_has_an_id_and_no_container_id() {
        let record = ProcessRecord { container_id: "web".into(), id: "web".into(), ..Default::default() };
        let sent = process_to_proto(record);
        assert_eq!((sent.id.as_str(), sent.container_id.as_str()), ("web", ""));
        assert_eq!(sent.exited_at, Some(timestamp::GO_ZERO));
        assert_eq!(process_from_proto(sent).unwrap().exited_at, None);
    }

    #[test]
    fn an_exec_survives_the_wire() {
        let record = ProcessRecord {
            container_id: "web".into(),
            id: "sh".into(),
            pid: 7,
            status: TaskStatus::Stopped,
            io: TaskIo { stdin: "i".into(), stdout: "o".into(), stderr: "e".into(), terminal: true },
            exit_status: 137,
            exited_at: Some(std::time::UNIX_EPOCH + std::time::Duration::new(9, 8)),
        };
        assert_eq!(process_from_proto(process_to_proto(record.clone())).unwrap(), record);
    }
}
