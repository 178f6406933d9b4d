//! Events as JSON.

use std::time::SystemTime;

use gantry_core::events::{Event, EventPayload};
use gantry_core::mount::Mount;
use gantry_core::tasks::TaskIo;
use gantry_core::{Any, Labels};
use serde_json::{Map, Value, json};

/// What a field holds, or nothing where it is empty: the wire knows no difference.
trait Shown {
    fn shown(&self) -> Option<Value>;
}

impl Shown for String {
    fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| self.as_str().into())
    }
}

impl Shown for u32 {
    fn shown(&self) -> Option<Value> {
        (*self != 0).then(|| (*self).into())
    }
}

impl Shown for i64 {
    fn shown(&self) -> Option<Value> {
        (*self != 0).then(|| (*self).into())
    }
}

impl Shown for bool {
    fn shown(&self) -> Option<Value> {
        self.then(|| true.into())
    }
}

impl Shown for Labels {
    fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| json!(self))
    }
}

impl Shown for Vec<String> {
    fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| json!(self))
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> Option<Value> {
        self.as_ref().and_then(Shown::shown)
    }
}

impl Shown for SystemTime {
    fn shown(&self) -> Option<Value> {
        Some(crate::output::exactly(*self).into())
    }
}

impl Shown for Any {
    fn shown(&self) -> Option<Value> {
        Some(json!({ "type_url": self.type_url, "size": self.value.len() }))
    }
}

impl Shown for Vec<Mount> {
    fn shown(&self) -> Option<Value> {
        let mounts = self.iter().map(|Mount { kind, source, target, options }| {
            object([
                ("type", kind.shown()),
                ("source", source.shown()),
                ("target", target.shown()),
                ("options", options.shown()),
            ])
        });
        (!self.is_empty()).then(|| mounts.collect::<Vec<_>>().into())
    }
}

impl Shown for TaskIo {
    fn shown(&self) -> Option<Value> {
        let TaskIo { stdin, stdout, stderr, terminal } = self;
        Some(object([
            ("stdin", stdin.shown()),
            ("stdout", stdout.shown()),
            ("stderr", stderr.shown()),
            ("terminal", terminal.shown()),
        ]))
    }
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

macro_rules! fields {
    ($event:expr; $($name:ident { $($field:ident),* })*) => {
        match $event {
            $(Event::$name { $($field),* } => object([$((stringify!($field), $field.shown())),*]),)*
        }
    };
}

/// The fields of an event, under the names of the wire; those that are empty are left out.
pub(crate) fn payload(payload: &EventPayload) -> Value {
    match (payload.event(), payload) {
        (Some(event), _) => fields(event),
        (None, EventPayload::Foreign { raw, .. }) => raw.shown().unwrap_or_default(),
        (None, EventPayload::Typed(event)) => fields(event),
    }
}

fn fields(event: &Event) -> Value {
    fields! { event;
        ContainerCreate { id, image, runtime_name, runtime_options }
        ContainerUpdate { id, image, labels, snapshot_key }
        ContainerDelete { id }
        ContentCreate { digest, size, media_type }
        ContentDelete { digest }
        ImageCreate { name, labels }
        ImageUpdate { name, labels }
        ImageDelete { name }
        NamespaceCreate { name, labels }
        NamespaceUpdate { name, labels }
        NamespaceDelete { name }
        SandboxCreate { sandbox_id }
        SandboxStart { sandbox_id }
        SandboxExit { sandbox_id, exit_status, exited_at }
        SnapshotPrepare { key, parent, snapshotter }
        SnapshotCommit { key, name, snapshotter }
        SnapshotRemove { key, snapshotter }
        TaskCreate { container_id, bundle, rootfs, io, checkpoint, pid }
        TaskStart { container_id, pid }
        TaskExit { container_id, id, pid, exit_status, exited_at }
        TaskDelete { container_id, pid, exit_status, exited_at, id }
        TaskOom { container_id }
        TaskExecAdded { container_id, exec_id }
        TaskExecStarted { container_id, exec_id, pid }
        TaskPaused { container_id }
        TaskResumed { container_id }
        TaskCheckpointed { container_id, checkpoint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_wires_names_and_empty_ones_are_left_out() {
        let event = Event::TaskExit {
            container_id: "web".into(),
            id: "web".into(),
            pid: 7,
            exit_status: 0,
            exited_at: Some(SystemTime::UNIX_EPOCH),
        };
        assert_eq!(
            payload(&EventPayload::Typed(event)).to_string(),
            r#"{"container_id":"web","exited_at":"1970-01-01T00:00:00.000000000Z","id":"web","pid":7}"#
        );
    }

    #[test]
    fn what_is_not_known_is_named() {
        let raw = Any::new("example.org/Strange", "abc");
        let shown = payload(&EventPayload::Foreign { raw, decoded: None });
        assert_eq!(shown, json!({ "type_url": "example.org/Strange", "size": 3 }));
    }
}
