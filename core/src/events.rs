//! Events: what happened, told to whoever listens.
//!
//! A subscriber has a bounded queue; one that falls behind is ended, never skipped silently, and no publisher waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::filters::Adaptor;
use crate::mount::Mount;
use crate::tasks::TaskIo;
use crate::{Any, Context, Error, ItemStream, Labels, Result};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident, $topic:literal, $type_name:literal, { $($(#[$field_doc:meta])* $field:ident : $ty:ty),* $(,)? };)*) => {
        /// An event that gantry itself knows, with its payload. Fields carry the names of the wire's messages.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Event {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $ty),* },)*
        }

        impl Event {
            /// The topic it is published under.
            pub fn topic(&self) -> &'static str {
                match self { $(Event::$name { .. } => $topic,)* }
            }

            /// The full name of its message, which is also its type URL.
            pub fn type_name(&self) -> &'static str {
                match self { $(Event::$name { .. } => $type_name,)* }
            }

            /// Every message name that an [`Event`] can have.
            pub const TYPE_NAMES: &'static [&'static str] = &[$($type_name),*];
        }
    };
}

// Source: features section F for the topics; wire/containerd.txt for messages and fields.
events! {
    /// A container was stored.
    ContainerCreate, "/containers/create", "containerd.events.ContainerCreate",
        { #[doc = "Its id."] id: String, #[doc = "Its image."] image: String, #[doc = "Its runtime's name."] runtime_name: String, #[doc = "Its runtime's options."] runtime_options: Option<Any> };
    /// A container was changed.
    ContainerUpdate, "/containers/update", "containerd.events.ContainerUpdate",
        { #[doc = "Its id."] id: String, #[doc = "Its image."] image: String, #[doc = "Its labels."] labels: Labels, #[doc = "Its snapshot."] snapshot_key: String };
    /// A container was removed.
    ContainerDelete, "/containers/delete", "containerd.events.ContainerDelete", { #[doc = "Its id."] id: String };
    /// A blob was committed.
    ContentCreate, "/content/create", "containerd.events.ContentCreate",
        { #[doc = "Its digest."] digest: String, #[doc = "Its length in bytes."] size: i64, #[doc = "Its media type, if known."] media_type: String };
    /// A blob was removed.
    ContentDelete, "/content/delete", "containerd.events.ContentDelete", { #[doc = "Its digest."] digest: String };
    /// An image was stored.
    ImageCreate, "/images/create", "containerd.services.images.v1.ImageCreate", { #[doc = "Its name."] name: String, #[doc = "Its labels."] labels: Labels };
    /// An image was changed.
    ImageUpdate, "/images/update", "containerd.services.images.v1.ImageUpdate", { #[doc = "Its name."] name: String, #[doc = "Its labels."] labels: Labels };
    /// An image was removed.
    ImageDelete, "/images/delete", "containerd.services.images.v1.ImageDelete", { #[doc = "Its name."] name: String };
    /// A namespace was made.
    NamespaceCreate, "/namespaces/create", "containerd.events.NamespaceCreate", { #[doc = "Its name."] name: String, #[doc = "Its labels."] labels: Labels };
    /// A namespace was changed.
    NamespaceUpdate, "/namespaces/update", "containerd.events.NamespaceUpdate", { #[doc = "Its name."] name: String, #[doc = "Its labels."] labels: Labels };
    /// A namespace was removed.
    NamespaceDelete, "/namespaces/delete", "containerd.events.NamespaceDelete", { #[doc = "Its name."] name: String };
    /// A sandbox was made.
    SandboxCreate, "/sandboxes/create", "containerd.events.SandboxCreate", { #[doc = "Its id."] sandbox_id: String };
    /// A sandbox began.
    SandboxStart, "/sandboxes/start", "containerd.events.SandboxStart", { #[doc = "Its id."] sandbox_id: String };
    /// A sandbox ended.
    SandboxExit, "/sandboxes/exit", "containerd.events.SandboxExit",
        { #[doc = "Its id."] sandbox_id: String, #[doc = "Its exit status."] exit_status: u32, #[doc = "When."] exited_at: Option<SystemTime> };
    /// An active snapshot was made.
    SnapshotPrepare, "/snapshot/prepare", "containerd.events.SnapshotPrepare",
        { #[doc = "Its key."] key: String, #[doc = "Its parent."] parent: String, #[doc = "Its snapshotter."] snapshotter: String };
    /// A snapshot was committed.
    SnapshotCommit, "/snapshot/commit", "containerd.events.SnapshotCommit",
        { #[doc = "Its key until now."] key: String, #[doc = "Its name from now on."] name: String, #[doc = "Its snapshotter."] snapshotter: String };
    /// A snapshot was removed.
    SnapshotRemove, "/snapshot/remove", "containerd.events.SnapshotRemove", { #[doc = "Its key."] key: String, #[doc = "Its snapshotter."] snapshotter: String };
    /// A task was made.
    TaskCreate, "/tasks/create", "containerd.events.TaskCreate",
        { #[doc = "The container."] container_id: String, #[doc = "The bundle's directory."] bundle: String, #[doc = "The root file system."] rootfs: Vec<Mount>, #[doc = "Input and output."] io: Option<TaskIo>, #[doc = "The checkpoint it came from."] checkpoint: String, #[doc = "The init process."] pid: u32 };
    /// A task began.
    TaskStart, "/tasks/start", "containerd.events.TaskStart", { #[doc = "The container."] container_id: String, #[doc = "The init process."] pid: u32 };
    /// A process ended.
    TaskExit, "/tasks/exit", "containerd.events.TaskExit",
        { #[doc = "The container."] container_id: String, #[doc = "The process's id."] id: String, #[doc = "Its pid."] pid: u32, #[doc = "Its exit status."] exit_status: u32, #[doc = "When."] exited_at: Option<SystemTime> };
    /// A process was deleted.
    TaskDelete, "/tasks/delete", "containerd.events.TaskDelete",
        { #[doc = "The container."] container_id: String, #[doc = "Its pid."] pid: u32, #[doc = "Its exit status."] exit_status: u32, #[doc = "When it ended."] exited_at: Option<SystemTime>, #[doc = "The process's id."] id: String };
    /// A container ran out of memory.
    TaskOom, "/tasks/oom", "containerd.events.TaskOOM", { #[doc = "The container."] container_id: String };
    /// A process was added.
    TaskExecAdded, "/tasks/exec-added", "containerd.events.TaskExecAdded", { #[doc = "The container."] container_id: String, #[doc = "The process's id."] exec_id: String };
    /// An added process began.
    TaskExecStarted, "/tasks/exec-started", "containerd.events.TaskExecStarted",
        { #[doc = "The container."] container_id: String, #[doc = "The process's id."] exec_id: String, #[doc = "Its pid."] pid: u32 };
    /// A task was frozen.
    TaskPaused, "/tasks/paused", "containerd.events.TaskPaused", { #[doc = "The container."] container_id: String };
    /// A task was thawed.
    TaskResumed, "/tasks/resumed", "containerd.events.TaskResumed", { #[doc = "The container."] container_id: String };
    /// A checkpoint was written.
    TaskCheckpointed, "/tasks/checkpointed", "containerd.events.TaskCheckpointed", { #[doc = "The container."] container_id: String, #[doc = "Where."] checkpoint: String };
}

impl Event {
    /// The value that a filter's `event.<path>` looks at; `None` if the event has no such field.
    ///
    /// Source: the generated `Field` methods of containerd's event messages, which know scalar text fields and labels.
    pub fn field(&self, path: &[&str]) -> Option<String> {
        fn text(value: &str) -> Option<String> {
            (!value.is_empty()).then(|| value.to_owned())
        }
        fn label(labels: &BTreeMap<String, String>, rest: &[&str]) -> Option<String> {
            labels.get(&rest.join(".")).cloned()
        }
        let (first, rest) = path.split_first()?;
        match (self, *first) {
            (Event::ContainerCreate { runtime_name, .. }, "runtime") if rest == ["name"] => {
                text(runtime_name)
            }
            (
                Event::ContainerUpdate { labels, .. }
                | Event::ImageCreate { labels, .. }
                | Event::ImageUpdate { labels, .. }
                | Event::NamespaceCreate { labels, .. }
                | Event::NamespaceUpdate { labels, .. },
                "labels",
            ) => label(labels, rest),
            _ if !rest.is_empty() => None,
            (
                Event::ContainerCreate { id, .. }
                | Event::ContainerUpdate { id, .. }
                | Event::ContainerDelete { id },
                "id",
            ) => text(id),
            (Event::ContainerCreate { image, .. } | Event::ContainerUpdate { image, .. }, "image") => {
                text(image)
            }
            (Event::ContainerUpdate { snapshot_key, .. }, "snapshot_key") => text(snapshot_key),
            (Event::ContentCreate { digest, .. } | Event::ContentDelete { digest }, "digest") => text(digest),
            (
                Event::ImageCreate { name, .. }
                | Event::ImageUpdate { name, .. }
                | Event::ImageDelete { name }
                | Event::NamespaceCreate { name, .. }
                | Event::NamespaceUpdate { name, .. }
                | Event::NamespaceDelete { name }
                | Event::SnapshotCommit { name, .. },
                "name",
            ) => text(name),
            (
                Event::SandboxCreate { sandbox_id }
                | Event::SandboxStart { sandbox_id }
                | Event::SandboxExit { sandbox_id, .. },
                "sandbox_id",
            ) => text(sandbox_id),
            (
                Event::SnapshotPrepare { key, .. }
                | Event::SnapshotCommit { key, .. }
                | Event::SnapshotRemove { key, .. },
                "key",
            ) => text(key),
            (Event::SnapshotPrepare { parent, .. }, "parent") => text(parent),
            (
                Event::SnapshotPrepare { snapshotter, .. }
                | Event::SnapshotCommit { snapshotter, .. }
                | Event::SnapshotRemove { snapshotter, .. },
                "snapshotter",
            ) => text(snapshotter),
            (Event::TaskCreate { bundle, .. }, "bundle") => text(bundle),
            (
                Event::TaskCreate { checkpoint, .. } | Event::TaskCheckpointed { checkpoint, .. },
                "checkpoint",
            ) => text(checkpoint),
            (Event::TaskExit { id, .. } | Event::TaskDelete { id, .. }, "id") => text(id),
            (Event::TaskExecAdded { exec_id, .. } | Event::TaskExecStarted { exec_id, .. }, "exec_id") => {
                text(exec_id)
            }
            (_, "container_id") => self.container_id().and_then(text),
            _ => None,
        }
    }

    /// The container that a task event is about.
    pub fn container_id(&self) -> Option<&str> {
        match self {
            Event::TaskCreate { container_id, .. }
            | Event::TaskStart { container_id, .. }
            | Event::TaskExit { container_id, .. }
            | Event::TaskDelete { container_id, .. }
            | Event::TaskOom { container_id }
            | Event::TaskExecAdded { container_id, .. }
            | Event::TaskExecStarted { container_id, .. }
            | Event::TaskPaused { container_id }
            | Event::TaskResumed { container_id }
            | Event::TaskCheckpointed { container_id, .. } => Some(container_id),
            _ => None,
        }
    }
}

/// An event's payload.
#[derive(Clone, Debug, PartialEq)]
pub enum EventPayload {
    /// One of our own.
    Typed(Event),
    /// A client's or a shim's, passed on as it came; `decoded` if its type is one that gantry knows.
    Foreign {
        /// The payload as it came.
        raw: Any,
        /// What it says, for filters.
        decoded: Option<Event>,
    },
}

impl EventPayload {
    /// The event, if gantry knows its type.
    pub fn event(&self) -> Option<&Event> {
        match self {
            EventPayload::Typed(event) => Some(event),
            EventPayload::Foreign { decoded, .. } => decoded.as_ref(),
        }
    }
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// When it happened.
    pub timestamp: SystemTime,
    /// Where.
    pub namespace: String,
    /// Under which topic.
    pub topic: String,
    /// What.
    pub payload: EventPayload,
}

impl Adaptor for Envelope {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: the generated `Field` method of containerd's envelope: timestamp is not adapted.
            ["namespace"] => (!self.namespace.is_empty()).then(|| self.namespace.clone()),
            ["topic"] => (!self.topic.is_empty()).then(|| self.topic.clone()),
            ["event", rest @ ..] => self.payload.event()?.field(rest),
            _ => None,
        }
    }
}

/// Checks a topic: a leading `/` and identifiers between slashes.
///
/// # Errors
/// `InvalidArgument` naming the topic.
pub fn validate_topic(topic: &str) -> Result<()> {
    let wrong = |why: String| Err(Error::invalid_argument(format!("topic {topic:?} {why}")));
    if topic.is_empty() {
        return Err(Error::invalid_argument("envelope topic required: must not be empty"));
    }
    let Some(rest) = topic.strip_prefix('/') else { return wrong("must start with '/'".into()) };
    if rest.is_empty() {
        return wrong("must have at least one component".into());
    }
    for part in rest.split('/') {
        if let Err(error) = crate::identifiers::validate_identifier(part) {
            return Err(error.context(format!("component {part:?} of topic {topic:?}")));
        }
    }
    Ok(())
}

/// Tells the world.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Publishes one of our own events in the context's namespace. Never fails and never waits for a subscriber: what
    /// happened has happened.
    async fn publish(&self, cx: &Context, event: Event);

    /// Passes on an event that came from elsewhere, with its own namespace and time.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad topic or namespace.
    async fn forward(&self, envelope: Envelope) -> Result<()>;
}

/// Listens to the world.
#[async_trait]
pub trait EventSubscriber: Send + Sync {
    /// The events of all namespaces that any of `filters` matches, from now on. The stream ends with `ResourceExhausted` if the
    /// subscriber falls behind.
    ///
    /// # Errors
    /// `Unknown` for a filter that does not parse, as containerd answers.
    async fn subscribe(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Arc<Envelope>>>;
}

/// Both ends of the exchange, with publishing of foreign payloads, as the event service offers it.
#[async_trait]
pub trait EventService: EventSubscriber {
    /// Publishes a payload under `topic` in the context's namespace.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad topic; `FailedPrecondition` without namespace.
    async fn publish_any(&self, cx: &Context, topic: &str, payload: EventPayload) -> Result<()>;

    /// See [`EventPublisher::forward`].
    ///
    /// # Errors
    /// As there.
    async fn forward(&self, envelope: Envelope) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_need_a_slash_and_identifiers() {
        for good in ["/a", "/tasks/exec-added", "/a/b/c"] {
            validate_topic(good).unwrap();
        }
        for bad in ["", "/", "a", "/a/", "//a", "/a b"] {
            assert_eq!(validate_topic(bad).unwrap_err().kind(), crate::ErrorKind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn filters_see_event_fields() {
        let event = Event::TaskExit {
            container_id: "web".into(),
            id: "sh".into(),
            pid: 7,
            exit_status: 1,
            exited_at: None,
        };
        assert_eq!(event.field(&["container_id"]).as_deref(), Some("web"));
        assert_eq!(event.field(&["id"]).as_deref(), Some("sh"));
        assert_eq!(event.field(&["pid"]), None);
        let event =
            Event::ImageCreate { name: "n".into(), labels: [("a.b".to_owned(), "c".to_owned())].into() };
        assert_eq!(event.field(&["labels", "a", "b"]).as_deref(), Some("c"));
    }
}
