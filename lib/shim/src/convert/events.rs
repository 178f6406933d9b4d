//! Events and their envelopes. A shim sends those of tasks; others pass through as they are.

use std::time::SystemTime;

use gantry_api::containerd::events as wire;
use gantry_api::containerd::types::Envelope as WireEnvelope;
use gantry_core::events::{Envelope, Event, EventPayload};
use gantry_core::tasks::TaskIo;
use gantry_core::{Any, Error, Result};
use prost::Message;

use super::{any_from_proto, any_to_proto, mount_from_proto, mount_to_proto, time_from_proto, time_to_proto};

/// A task event as a payload; `None` for events that no shim sends.
pub fn event_to_any(event: Event) -> Option<Any> {
    let type_url = event.type_name();
    let value = match event {
        Event::TaskCreate { container_id, bundle, rootfs, io, checkpoint, pid } => wire::TaskCreate {
            container_id,
            bundle,
            rootfs: rootfs.into_iter().map(mount_to_proto).collect(),
            io: io.map(io_to_proto),
            checkpoint,
            pid,
        }
        .encode_to_vec(),
        Event::TaskStart { container_id, pid } => wire::TaskStart { container_id, pid }.encode_to_vec(),
        Event::TaskExit { container_id, id, pid, exit_status, exited_at } => {
            wire::TaskExit { container_id, id, pid, exit_status, exited_at: time_to_proto(exited_at) }
                .encode_to_vec()
        }
        Event::TaskDelete { container_id, pid, exit_status, exited_at, id } => {
            wire::TaskDelete { container_id, pid, exit_status, exited_at: time_to_proto(exited_at), id }
                .encode_to_vec()
        }
        Event::TaskOom { container_id } => wire::TaskOom { container_id }.encode_to_vec(),
        Event::TaskExecAdded { container_id, exec_id } => {
            wire::TaskExecAdded { container_id, exec_id }.encode_to_vec()
        }
        Event::TaskExecStarted { container_id, exec_id, pid } => {
            wire::TaskExecStarted { container_id, exec_id, pid }.encode_to_vec()
        }
        Event::TaskPaused { container_id } => wire::TaskPaused { container_id }.encode_to_vec(),
        Event::TaskResumed { container_id } => wire::TaskResumed { container_id }.encode_to_vec(),
        Event::TaskCheckpointed { container_id, checkpoint } => {
            wire::TaskCheckpointed { container_id, checkpoint }.encode_to_vec()
        }
        _ => return None,
    };
    Some(Any::new(type_url, value))
}

/// The task event that a payload holds; `None` for other types and for what does not decode.
pub fn event_from_any(any: &Any) -> Option<Event> {
    fn read<M: Message + Default>(any: &Any) -> Option<M> {
        M::decode(any.value.clone()).ok()
    }
    Some(match any.type_name() {
        "containerd.events.TaskCreate" => {
            let read: wire::TaskCreate = read(any)?;
            Event::TaskCreate {
                container_id: read.container_id,
                bundle: read.bundle,
                rootfs: read.rootfs.into_iter().map(mount_from_proto).collect(),
                io: read.io.map(io_from_proto),
                checkpoint: read.checkpoint,
                pid: read.pid,
            }
        }
        "containerd.events.TaskStart" => {
            let read: wire::TaskStart = read(any)?;
            Event::TaskStart { container_id: read.container_id, pid: read.pid }
        }
        "containerd.events.TaskExit" => {
            let read: wire::TaskExit = read(any)?;
            Event::TaskExit {
                container_id: read.container_id,
                id: read.id,
                pid: read.pid,
                exit_status: read.exit_status,
                exited_at: time_from_proto(read.exited_at),
            }
        }
        "containerd.events.TaskDelete" => {
            let read: wire::TaskDelete = read(any)?;
            Event::TaskDelete {
                container_id: read.container_id,
                pid: read.pid,
                exit_status: read.exit_status,
                exited_at: time_from_proto(read.exited_at),
                id: read.id,
            }
        }
        "containerd.events.TaskOOM" => {
            Event::TaskOom { container_id: read::<wire::TaskOom>(any)?.container_id }
        }
        "containerd.events.TaskExecAdded" => {
            let read: wire::TaskExecAdded = read(any)?;
            Event::TaskExecAdded { container_id: read.container_id, exec_id: read.exec_id }
        }
        "containerd.events.TaskExecStarted" => {
            let read: wire::TaskExecStarted = read(any)?;
            Event::TaskExecStarted { container_id: read.container_id, exec_id: read.exec_id, pid: read.pid }
        }
        "containerd.events.TaskPaused" => {
            Event::TaskPaused { container_id: read::<wire::TaskPaused>(any)?.container_id }
        }
        "containerd.events.TaskResumed" => {
            Event::TaskResumed { container_id: read::<wire::TaskResumed>(any)?.container_id }
        }
        "containerd.events.TaskCheckpointed" => {
            let read: wire::TaskCheckpointed = read(any)?;
            Event::TaskCheckpointed { container_id: read.container_id, checkpoint: read.checkpoint }
        }
        _ => return None,
    })
}

/// An envelope, for the wire.
///
/// # Errors
/// `InvalidArgument` for an event of our own that no shim sends.
pub fn envelope_to_proto(envelope: Envelope) -> Result<WireEnvelope> {
    let event = match envelope.payload {
        EventPayload::Foreign { raw, .. } => raw,
        EventPayload::Typed(event) => {
            let name = event.type_name();
            event_to_any(event)
                .ok_or_else(|| Error::invalid_argument(format!("{name} is no event of a shim")))?
        }
    };
    Ok(WireEnvelope {
        timestamp: time_to_proto(Some(envelope.timestamp)),
        namespace: envelope.namespace,
        topic: envelope.topic,
        event: Some(any_to_proto(event)),
    })
}

/// An envelope, from the wire. One without a time happened now.
///
/// # Errors
/// `InvalidArgument` if there is no event in it.
pub fn envelope_from_proto(envelope: WireEnvelope) -> Result<Envelope> {
    let event = envelope.event.ok_or_else(|| Error::invalid_argument("envelope event is missing"))?;
    let raw = any_from_proto(event);
    let decoded = event_from_any(&raw);
    Ok(Envelope {
        timestamp: time_from_proto(envelope.timestamp).unwrap_or_else(SystemTime::now),
        namespace: envelope.namespace,
        topic: envelope.topic,
        payload: EventPayload::Foreign { raw, decoded },
    })
}

fn io_to_proto(io: TaskIo) -> wire::TaskIo {
    wire::TaskIo { stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, terminal: io.terminal }
}

fn io_from_proto(io: wire::TaskIo) -> TaskIo {
    TaskIo { stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, terminal: io.terminal }
}
