//! Where shims send their events: the service that the daemon offers beside its main socket.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::events::{Envelope, Event, EventPublisher};
use gantry_core::{ContainerId, Error, Namespace, Result};
use gantry_shim::convert;
use gantry_shim::wire::ForwardRequest;
use gantry_ttrpc::service::{decode, no_method};
use gantry_ttrpc::{CallContext, Service};

use crate::bundle::Bundles;
use crate::ledger::{Entry, Ledger, Told};

/// The service's name. Source: wire/ttrpc.txt.
pub const EVENTS_SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Passes on what shims send. An end that the daemon already told of, because the shim seemed dead, is not told again.
pub struct ForwardedEvents {
    pub(crate) events: Arc<dyn EventPublisher>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) bundles: Bundles,
}

impl std::fmt::Debug for ForwardedEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForwardedEvents")
    }
}

impl ForwardedEvents {
    async fn forward(&self, envelope: Envelope) -> Result<()> {
        let entry = envelope.payload.event().and_then(|event| end_of(&envelope.namespace, event));
        if let Some(entry) = &entry
            && !self.ledger.first(entry.clone())
        {
            return Ok(());
        }
        let forwarded = self.events.forward(envelope).await;
        match entry {
            Some(entry) if forwarded.is_err() => self.ledger.forget(&entry),
            Some(entry) if entry.told == Told::Exit => self.note(&entry).await,
            _ => {}
        }
        forwarded
    }

    /// Leaves word for the daemon after this one.
    async fn note(&self, entry: &Entry) {
        let names = (Namespace::parse(&*entry.namespace), ContainerId::parse(&*entry.container_id));
        let (Ok(namespace), Ok(id)) = names else { return };
        let bundle = self.bundles.bundle(&namespace, &id);
        let _ = tokio::task::spawn_blocking(move || bundle.note_exit_told()).await;
    }
}

/// The entry of an event that tells of the end of an init process.
fn end_of(namespace: &str, event: &Event) -> Option<Entry> {
    let (told, container_id, id, pid) = match event {
        Event::TaskExit { container_id, id, pid, .. } => (Told::Exit, container_id, id, *pid),
        Event::TaskDelete { container_id, id, pid, .. } => (Told::Delete, container_id, id, *pid),
        _ => return None,
    };
    (id.is_empty() || id == container_id).then(|| Entry {
        told,
        namespace: namespace.to_owned(),
        container_id: container_id.clone(),
        pid,
    })
}

#[async_trait]
impl Service for ForwardedEvents {
    async fn call(&self, method: &str, payload: Bytes, _: CallContext) -> Result<Bytes> {
        match method {
            "Forward" => {
                let request: ForwardRequest = decode(payload)?;
                let envelope =
                    request.envelope.ok_or_else(|| Error::invalid_argument("forward envelope is missing"))?;
                self.forward(convert::envelope_from_proto(envelope)?).await?;
                Ok(Bytes::new())
            }
            _ => Err(no_method(method)),
        }
    }
}
