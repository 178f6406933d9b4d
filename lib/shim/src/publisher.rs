//! Telling the daemon what happened.
//!
//! Events wait in one queue and are forwarded in order, each until a daemon acknowledged it. A daemon that is away, or
//! was replaced, changes nothing but the time this takes. Exits and wants of memory are kept whatever it takes; of the
//! others, which nobody can act on later, the oldest go when too many wait.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use gantry_api::containerd::services::events::ttrpc::v1::ForwardRequest;
use gantry_core::events::{Envelope, Event, EventPayload};
use gantry_core::{Error, ErrorKind, Result, wire_names};
use gantry_sys::Spawn;
use gantry_sys::process::Capture;
use gantry_ttrpc::{CallOptions, Client, Metadata};
use prost::Message;
use tokio::sync::Notify;

use crate::convert;
use crate::forward::SERVICE;

/// How many events that may be dropped wait at most.
const MAX_DROPPABLE: usize = 1024;

/// How long a daemon may take to acknowledge one event. Source: the original's publish timeout.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts to reach a daemon that is away: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often a daemon may refuse an event before it is given up.
const MAX_REFUSALS: u32 = 8;

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Its ttrpc socket.
    Socket(PathBuf),
    /// A program that publishes one event from its standard input, and the daemon's address for it.
    Program(PathBuf, String),
    /// Nobody listens.
    Nobody,
}

impl Daemon {
    /// What the command line and the environment say: the ttrpc address, or else the one that goes with the gRPC
    /// address, or else the program. Source: features I15.
    pub fn find(ttrpc_address: &str, grpc_address: &str, publish_binary: PathBuf) -> Daemon {
        if !ttrpc_address.is_empty() {
            return Daemon::Socket(gantry_ttrpc::socket::path_of(ttrpc_address).to_owned());
        }
        let beside = format!("{grpc_address}.ttrpc");
        if !grpc_address.is_empty() && std::path::Path::new(&beside).exists() {
            return Daemon::Socket(beside.into());
        }
        if !publish_binary.as_os_str().is_empty() {
            return Daemon::Program(publish_binary, grpc_address.to_owned());
        }
        match grpc_address {
            "" => Daemon::Nobody,
            _ => Daemon::Socket(beside.into()),
        }
    }
}

/// The queue of events. Clones share it.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    daemon: Daemon,
    namespace: String,
    queue: Mutex<Queue>,
    /// Fired when an event was put into the empty queue, and when the queue became empty.
    changed: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    droppable: usize,
    next_number: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    number: u64,
    keep: bool,
    at: SystemTime,
    topic: &'static str,
    event: Event,
}

impl Publisher {
    /// A publisher for the shim of `namespace`. Nothing is sent until [`Publisher::run`].
    pub fn new(daemon: Daemon, namespace: &str) -> Publisher {
        Publisher(Arc::new(Shared {
            daemon,
            namespace: namespace.to_owned(),
            queue: Mutex::default(),
            changed: Notify::new(),
            emptied: Notify::new(),
        }))
    }

    /// Puts an event into the queue. Never waits and never fails.
    pub fn publish(&self, event: Event) {
        if self.0.daemon == Daemon::Nobody {
            return;
        }
        let keep = matches!(event, Event::TaskExit { .. } | Event::TaskOom { .. });
        let mut queue = self.lock();
        let number = queue.next_number;
        queue.next_number += 1;
        if !keep {
            if queue.droppable == MAX_DROPPABLE {
                // Policy when full: the oldest that may go goes.
                if let Some(oldest) = queue.waiting.iter().position(|waiting| !waiting.keep) {
                    queue.waiting.remove(oldest);
                    queue.droppable -= 1;
                }
            }
            queue.droppable += 1;
        }
        let topic = event.topic();
        queue.waiting.push_back(Waiting { number, keep, at: SystemTime::now(), topic, event });
        drop(queue);
        self.0.changed.notify_one();
    }

    /// Waits until everything was acknowledged, at most for `patience`.
    pub async fn flush(&self, patience: Duration) {
        let empty = async {
            loop {
                // Registered before looking, so that what happens between is not missed.
                let emptied = self.0.emptied.notified();
                if self.lock().waiting.is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        if tokio::time::timeout(patience, empty).await.is_err() {
            tracing::warn!(events = self.lock().waiting.len(), "events were not acknowledged in time");
        }
    }

    /// How many events wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while holding it; a poisoned queue is still whole.
        self.0.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends what waits, for ever. Dropping the future loses nothing but the acknowledgement of the event under way.
    pub async fn run(&self) {
        let mut client = None;
        let mut pause = RETRY.0;
        let mut refusals = 0;
        loop {
            let Some(first) = self.first() else {
                self.0.changed.notified().await;
                continue;
            };
            let sent = match &self.0.daemon {
                Daemon::Nobody => Ok(()),
                Daemon::Socket(path) => self.forward(&mut client, path, &first).await,
                Daemon::Program(program, address) => self.run_program(program, address, &first).await,
            };
            match sent {
                Ok(()) => {
                    self.done(first.number);
                    (pause, refusals) = (RETRY.0, 0);
                    continue;
                }
                Err(error) if is_refusal(&error) && (refusals >= MAX_REFUSALS || never(&error)) => {
                    tracing::warn!(%error, topic = first.topic, "the daemon refuses an event");
                    self.done(first.number);
                    refusals = 0;
                    continue;
                }
                Err(error) => {
                    refusals += u32::from(is_refusal(&error));
                    tracing::debug!(%error, topic = first.topic, "an event is not acknowledged yet");
                    client = None;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    fn first(&self) -> Option<Waiting> {
        self.lock().waiting.front().cloned()
    }

    fn done(&self, number: u64) {
        let mut queue = self.lock();
        // It may have been dropped for another meanwhile.
        if queue.waiting.front().is_some_and(|first| first.number == number) {
            let first = queue.waiting.pop_front();
            queue.droppable -= usize::from(first.is_some_and(|first| !first.keep));
        }
        if queue.waiting.is_empty() {
            queue.waiting.shrink_to_fit();
            self.0.emptied.notify_waiters();
        }
    }

    async fn forward(
        &self,
        client: &mut Option<Client>,
        path: &std::path::Path,
        first: &Waiting,
    ) -> Result<()> {
        let client = match client {
            Some(client) if !client.is_closed() => client,
            other => other.insert(Client::connect(path).await?),
        };
        let envelope = convert::envelope_to_proto(Envelope {
            timestamp: first.at,
            namespace: self.0.namespace.clone(),
            topic: first.topic.to_owned(),
            payload: EventPayload::Typed(first.event.clone()),
        })?;
        let options = CallOptions {
            timeout: Some(FORWARD_TIMEOUT),
            metadata: Metadata::new().with(wire_names::TTRPC_NAMESPACE_HEADER, &self.0.namespace),
        };
        client.call(SERVICE, "Forward", &ForwardRequest { envelope: Some(envelope) }, options).await
    }

    /// Source: features I02 and I15: `publish --topic T --namespace N` with the payload on its standard input.
    async fn run_program(&self, program: &std::path::Path, address: &str, first: &Waiting) -> Result<()> {
        let payload = convert::event_to_any(first.event.clone())
            .ok_or_else(|| Error::invalid_argument("no event of a shim"))?;
        let capture = Capture {
            stdin: convert::any_to_proto(payload).encode_to_vec(),
            timeout: Some(FORWARD_TIMEOUT),
            ..Capture::default()
        };
        let run = Spawn::new(program)
            .inherit_env()
            .args(["--address", address, "publish", "--topic", first.topic, "--namespace", &self.0.namespace])
            .output(capture)
            .await?;
        match run.status.success() {
            true => Ok(()),
            false => Err(Error::unavailable(format!("publish: {}", run.status))),
        }
    }
}

/// Whether a daemon answered, and did not want the event, rather than being away.
fn is_refusal(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Canceled)
        && error.os_error().is_none()
}

/// Whether asking again is pointless.
fn never(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidArgument
}

#[cfg(test)]
mod tests;
