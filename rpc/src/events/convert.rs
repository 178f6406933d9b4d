//! Events and their messages, both ways.

use gantry_api::containerd::events as ev;
use gantry_api::containerd::services::images::v1 as im;
use gantry_api::containerd::types::Envelope as ProtoEnvelope;
use gantry_core::events::{Envelope, Event, EventPayload};
use gantry_core::tasks::TaskIo;
use gantry_core::{Any, Error, Result};
use prost::Message as _;

use crate::{any, mount, timestamp};

fn io_to_proto(io: TaskIo) -> ev::TaskIo {
    ev::TaskIo { stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, terminal: io.terminal }
}

fn io_from_proto(io: ev::TaskIo) -> TaskIo {
    TaskIo { stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, terminal: io.terminal }
}

/// The message of `event`, encoded.
fn encode(event: Event) -> Vec<u8> {
    match event {
        Event::ContainerCreate { id, image, runtime_name, runtime_options } => {
            let options = runtime_options.map(any::to_proto);
            let runtime = Some(ev::container_create::Runtime { name: runtime_name, options });
            ev::ContainerCreate { id, image, runtime }.encode_to_vec()
        }
        Event::ContainerUpdate { id, image, labels, snapshot_key } => {
            ev::ContainerUpdate { id, image, labels, snapshot_key }.encode_to_vec()
        }
        Event::ContainerDelete { id } => ev::ContainerDelete { id }.encode_to_vec(),
        Event::ContentCreate { digest, size, media_type } => {
            ev::ContentCreate { digest, size, media_type }.encode_to_vec()
        }
        Event::ContentDelete { digest } => ev::ContentDelete { digest }.encode_to_vec(),
        Event::ImageCreate { name, labels } => im::ImageCreate { name, labels }.encode_to_vec(),
        Event::ImageUpdate { name, labels } => im::ImageUpdate { name, labels }.encode_to_vec(),
        Event::ImageDelete { name } => im::ImageDelete { name }.encode_to_vec(),
        Event::NamespaceCreate { name, labels } => ev::NamespaceCreate { name, labels }.encode_to_vec(),
        Event::NamespaceUpdate { name, labels } => ev::NamespaceUpdate { name, labels }.encode_to_vec(),
        Event::NamespaceDelete { name } => ev::NamespaceDelete { name }.encode_to_vec(),
        Event::SandboxCreate { sandbox_id } => ev::SandboxCreate { sandbox_id }.encode_to_vec(),
        Event::SandboxStart { sandbox_id } => ev::SandboxStart { sandbox_id }.encode_to_vec(),
        Event::SandboxExit { sandbox_id, exit_status, exited_at } => {
            ev::SandboxExit { sandbox_id, exit_status, exited_at: Some(timestamp::or_go_zero(exited_at)) }
                .encode_to_vec()
        }
        Event::SnapshotPrepare { key, parent, snapshotter } => {
            ev::SnapshotPrepare { key, parent, snapshotter }.encode_to_vec()
        }
        Event::SnapshotCommit { key, name, snapshotter } => {
            ev::SnapshotCommit { key, name, snapshotter }.encode_to_vec()
        }
        Event::SnapshotRemove { key, snapshotter } => ev::SnapshotRemove { key, snapshotter }.encode_to_vec(),
        Event::TaskCreate { container_id, bundle, rootfs, io, checkpoint, pid } => ev::TaskCreate {
            container_id,
            bundle,
            rootfs: mount::to_proto(rootfs),
            io: io.map(io_to_proto),
            checkpoint,
            pid,
        }
        .encode_to_vec(),
        Event::TaskStart { container_id, pid } => ev::TaskStart { container_id, pid }.encode_to_vec(),
        Event::TaskExit { container_id, id, pid, exit_status, exited_at } => ev::TaskExit {
            container_id,
            id,
            pid,
            exit_status,
            exited_at: Some(timestamp::or_go_zero(exited_at)),
        }
        .encode_to_vec(),
        Event::TaskDelete { container_id, pid, exit_status, exited_at, id } => ev::TaskDelete {
            container_id,
            pid,
            exit_status,
            exited_at: Some(timestamp::or_go_zero(exited_at)),
            id,
        }
        .encode_to_vec(),
        Event::TaskOom { container_id } => ev::TaskOom { container_id }.encode_to_vec(),
        Event::TaskExecAdded { container_id, exec_id } => {
            ev::TaskExecAdded { container_id, exec_id }.encode_to_vec()
        }
        Event::TaskExecStarted { container_id, exec_id, pid } => {
            ev::TaskExecStarted { container_id, exec_id, pid }.encode_to_vec()
        }
        Event::TaskPaused { container_id } => ev::TaskPaused { container_id }.encode_to_vec(),
        Event::TaskResumed { container_id } => ev::TaskResumed { container_id }.encode_to_vec(),
        Event::TaskCheckpointed { container_id, checkpoint } => {
            ev::TaskCheckpointed { container_id, checkpoint }.encode_to_vec()
        }
    }
}

/// The event in `raw`, if its type is one that gantry knows and it parses.
pub(crate) fn decode(raw: &Any) -> Option<Event> {
    let bytes = raw.value.clone();
    Some(match raw.type_name() {
        "containerd.events.ContainerCreate" => {
            let m = ev::ContainerCreate::decode(bytes).ok()?;
            let runtime = m.runtime.unwrap_or_default();
            Event::ContainerCreate {
                id: m.id,
                image: m.image,
                runtime_name: runtime.name,
                runtime_options: runtime.options.map(any::from_proto),
            }
        }
        "containerd.events.ContainerUpdate" => {
            let m = ev::ContainerUpdate::decode(bytes).ok()?;
            Event::ContainerUpdate {
                id: m.id,
                image: m.image,
                labels: m.labels,
                snapshot_key: m.snapshot_key,
            }
        }
        "containerd.events.ContainerDelete" => {
            let m = ev::ContainerDelete::decode(bytes).ok()?;
            Event::ContainerDelete { id: m.id }
        }
        "containerd.events.ContentCreate" => {
            let m = ev::ContentCreate::decode(bytes).ok()?;
            Event::ContentCreate { digest: m.digest, size: m.size, media_type: m.media_type }
        }
        "containerd.events.ContentDelete" => {
            let m = ev::ContentDelete::decode(bytes).ok()?;
            Event::ContentDelete { digest: m.digest }
        }
        "containerd.services.images.v1.ImageCreate" => {
            let m = im::ImageCreate::decode(bytes).ok()?;
            Event::ImageCreate { name: m.name, labels: m.labels }
        }
        "containerd.services.images.v1.ImageUpdate" => {
            let m = im::ImageUpdate::decode(bytes).ok()?;
            Event::ImageUpdate { name: m.name, labels: m.labels }
        }
        "containerd.services.images.v1.ImageDelete" => {
            let m = im::ImageDelete::decode(bytes).ok()?;
            Event::ImageDelete { name: m.name }
        }
        "containerd.events.NamespaceCreate" => {
            let m = ev::NamespaceCreate::decode(bytes).ok()?;
            Event::NamespaceCreate { name: m.name, labels: m.labels }
        }
        "containerd.events.NamespaceUpdate" => {
            let m = ev::NamespaceUpdate::decode(bytes).ok()?;
            Event::NamespaceUpdate { name: m.name, labels: m.labels }
        }
        "containerd.events.NamespaceDelete" => {
            let m = ev::NamespaceDelete::decode(bytes).ok()?;
            Event::NamespaceDelete { name: m.name }
        }
        "containerd.events.SandboxCreate" => {
            let m = ev::SandboxCreate::decode(bytes).ok()?;
            Event::SandboxCreate { sandbox_id: m.sandbox_id }
        }
        "containerd.events.SandboxStart" => {
            let m = ev::SandboxStart::decode(bytes).ok()?;
            Event::SandboxStart { sandbox_id: m.sandbox_id }
        }
        "containerd.events.SandboxExit" => {
            let m = ev::SandboxExit::decode(bytes).ok()?;
            Event::SandboxExit {
                sandbox_id: m.sandbox_id,
                exit_status: m.exit_status,
                exited_at: timestamp::optional(m.exited_at, "exited_at").ok()?,
            }
        }
        "containerd.events.SnapshotPrepare" => {
            let m = ev::SnapshotPrepare::decode(bytes).ok()?;
            Event::SnapshotPrepare { key: m.key, parent: m.parent, snapshotter: m.snapshotter }
        }
        "containerd.events.SnapshotCommit" => {
            let m = ev::SnapshotCommit::decode(bytes).ok()?;
            Event::SnapshotCommit { key: m.key, name: m.name, snapshotter: m.snapshotter }
        }
        "containerd.events.SnapshotRemove" => {
            let m = ev::SnapshotRemove::decode(bytes).ok()?;
            Event::SnapshotRemove { key: m.key, snapshotter: m.snapshotter }
        }
        "containerd.events.TaskCreate" => {
            let m = ev::TaskCreate::decode(bytes).ok()?;
            Event::TaskCreate {
                container_id: m.container_id,
                bundle: m.bundle,
                rootfs: mount::from_proto(m.rootfs),
                io: m.io.map(io_from_proto),
                checkpoint: m.checkpoint,
                pid: m.pid,
            }
        }
        "containerd.events.TaskStart" => {
            let m = ev::TaskStart::decode(bytes).ok()?;
            Event::TaskStart { container_id: m.container_id, pid: m.pid }
        }
        "containerd.events.TaskExit" => {
            let m = ev::TaskExit::decode(bytes).ok()?;
            Event::TaskExit {
                container_id: m.container_id,
                id: m.id,
                pid: m.pid,
                exit_status: m.exit_status,
                exited_at: timestamp::optional(m.exited_at, "exited_at").ok()?,
            }
        }
        "containerd.events.TaskDelete" => {
            let m = ev::TaskDelete::decode(bytes).ok()?;
            Event::TaskDelete {
                container_id: m.container_id,
                pid: m.pid,
                exit_status: m.exit_status,
                exited_at: timestamp::optional(m.exited_at, "exited_at").ok()?,
                id: m.id,
            }
        }
        "containerd.events.TaskOOM" => {
            let m = ev::TaskOom::decode(bytes).ok()?;
            Event::TaskOom { container_id: m.container_id }
        }
        "containerd.events.TaskExecAdded" => {
            let m = ev::TaskExecAdded::decode(bytes).ok()?;
            Event::TaskExecAdded { container_id: m.container_id, exec_id: m.exec_id }
        }
        "containerd.events.TaskExecStarted" => {
            let m = ev::TaskExecStarted::decode(bytes).ok()?;
            Event::TaskExecStarted { container_id: m.container_id, exec_id: m.exec_id, pid: m.pid }
        }
        "containerd.events.TaskPaused" => {
            let m = ev::TaskPaused::decode(bytes).ok()?;
            Event::TaskPaused { container_id: m.container_id }
        }
        "containerd.events.TaskResumed" => {
            let m = ev::TaskResumed::decode(bytes).ok()?;
            Event::TaskResumed { container_id: m.container_id }
        }
        "containerd.events.TaskCheckpointed" => {
            let m = ev::TaskCheckpointed::decode(bytes).ok()?;
            Event::TaskCheckpointed { container_id: m.container_id, checkpoint: m.checkpoint }
        }
        _ => return None,
    })
}

/// A payload from the wire: passed on as it came.
/// The payload of an encoded `google.protobuf.Any`, as shims write it to a `publish` command.
///
/// # Errors
/// `InvalidArgument` if the bytes are none.
pub fn payload_from_bytes(bytes: &[u8]) -> Result<EventPayload> {
    let payload = gantry_api::Any::decode(bytes)
        .map_err(|error| Error::invalid_argument(format!("event payload: {error}")))?;
    Ok(payload_from_proto(payload))
}

pub(crate) fn payload_from_proto(payload: gantry_api::Any) -> EventPayload {
    let raw = any::from_proto(payload);
    let decoded = decode(&raw);
    EventPayload::Foreign { raw, decoded }
}

/// What the wire carries; the type URL of our own events is the message's name, without prefix.
pub(crate) fn payload_to_proto(payload: EventPayload) -> gantry_api::Any {
    match payload {
        EventPayload::Typed(event) => {
            gantry_api::Any { type_url: event.type_name().to_owned(), value: encode(event) }
        }
        EventPayload::Foreign { raw, .. } => any::to_proto(raw),
    }
}

/// An envelope from the wire.
///
/// # Errors
/// `InvalidArgument` for Go's zero time, which is refused, unlike none at all.
pub(crate) fn envelope_from_proto(envelope: ProtoEnvelope) -> Result<Envelope> {
    if envelope.timestamp == Some(timestamp::GO_ZERO) {
        return Err(Error::invalid_argument("timestamp must be set on forwarded event"));
    }
    let at = timestamp::optional(envelope.timestamp, "envelope.timestamp")?;
    Ok(Envelope {
        timestamp: at.unwrap_or(std::time::UNIX_EPOCH),
        namespace: envelope.namespace,
        topic: envelope.topic,
        payload: payload_from_proto(envelope.event.unwrap_or_default()),
    })
}

pub(crate) fn envelope_to_proto(envelope: Envelope) -> ProtoEnvelope {
    ProtoEnvelope {
        timestamp: Some(timestamp::to_proto(envelope.timestamp)),
        namespace: envelope.namespace,
        topic: envelope.topic,
        event: Some(payload_to_proto(envelope.payload)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_is_decoded_and_encoded_the_same() {
        for name in Event::TYPE_NAMES {
            let event = decode(&Any::new(*name, bytes::Bytes::new())).expect(name);
            assert_eq!(event.type_name(), *name);
            let sent = payload_to_proto(EventPayload::Typed(event.clone()));
            assert_eq!(sent.type_url, *name);
            assert_eq!(decode(&any::from_proto(sent)), Some(event));
        }
    }

    #[test]
    fn a_foreign_payload_passes_unchanged() {
        for raw in [Any::new("example.com/x", "y"), Any::new("containerd.events.TaskOOM", "\u{0}bad")] {
            let payload = payload_from_proto(any::to_proto(raw.clone()));
            assert_eq!(payload.event(), None);
            assert_eq!(any::from_proto(payload_to_proto(payload)), raw);
        }
    }
}
