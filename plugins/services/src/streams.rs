//! The streams that clients have open, by namespace and name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use gantry_core::collection::{Collectable, Collection};
use gantry_core::streaming::{MessageStream, StreamManager};
use gantry_core::{Context, Error, Labels, LeaseId, Namespace, Result};

/// How many streams may be open at a time.
const MAX_STREAMS: usize = 16_384;
/// How long a name may be.
const MAX_NAME_BYTES: usize = 4096;

/// Namespace and name.
type Key = (String, String);

struct Entry {
    id: u64,
    stream: Arc<dyn MessageStream>,
    lease: Option<LeaseId>,
}

#[derive(Default)]
struct Open {
    streams: BTreeMap<Key, Entry>,
    last_id: u64,
}

/// Keeps open streams. Those that were opened under a lease end when a collection finds the lease gone; the others when their
/// client leaves.
#[derive(Default)]
pub struct StreamsService {
    open: Mutex<Open>,
}

fn key(cx: &Context, name: &str) -> Key {
    (cx.namespace_if_any().map(Namespace::to_string).unwrap_or_default(), name.to_owned())
}

impl StreamsService {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while holding it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StreamManager for StreamsService {
    async fn register(&self, cx: &Context, name: &str, stream: Arc<dyn MessageStream>) -> Result<()> {
        if name.len() > MAX_NAME_BYTES {
            let text = format!("a stream's name has {} bytes, and may have {MAX_NAME_BYTES}", name.len());
            return Err(Error::invalid_argument(text));
        }
        let key = key(cx, name);
        let mut open = self.open();
        if open.streams.contains_key(&key) {
            return Err(Error::already_exists(format!("stream {name:?}")));
        }
        if open.streams.len() >= MAX_STREAMS {
            return Err(Error::resource_exhausted(format!("stream {name:?}: {MAX_STREAMS} are open")));
        }
        open.last_id += 1;
        let entry = Entry { id: open.last_id, stream, lease: cx.lease().cloned() };
        open.streams.insert(key, entry);
        Ok(())
    }

    async fn get(&self, cx: &Context, name: &str) -> Result<Arc<dyn MessageStream>> {
        let found = self.open().streams.get(&key(cx, name)).map(|entry| Arc::clone(&entry.stream));
        found.ok_or_else(|| Error::not_found(format!("stream {name:?}")))
    }

    fn remove(&self, cx: &Context, name: &str, stream: &Arc<dyn MessageStream>) {
        let key = key(cx, name);
        let mut open = self.open();
        if open.streams.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.stream, stream)) {
            open.streams.remove(&key);
        }
    }
}

#[async_trait]
impl Collection for StreamsService {
    fn kind(&self) -> &'static str {
        "stream"
    }

    async fn collectables(&self) -> Result<Vec<Collectable>> {
        let open = self.open();
        let leased = open.streams.iter().filter(|(_, entry)| entry.lease.is_some());
        Ok(leased
            .map(|((namespace, name), entry)| Collectable {
                id: entry.id,
                namespace: namespace.clone(),
                name: name.clone(),
                lease: entry.lease.clone(),
                labels: Labels::new(),
            })
            .collect())
    }

    async fn collect(&self, gone: Vec<Collectable>) {
        for item in gone {
            let key = (item.namespace, item.name);
            let removed = {
                let mut open = self.open();
                let same = open.streams.get(&key).is_some_and(|entry| entry.id == item.id);
                if same { open.streams.remove(&key) } else { None }
            };
            if let Some(entry) = removed {
                tracing::debug!(namespace = key.0, stream = key.1, "collected a stream");
                entry.stream.close();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use gantry_core::{Any, ErrorKind};

    use super::*;

    #[derive(Default)]
    struct Still {
        closed: AtomicBool,
    }

    #[async_trait]
    impl MessageStream for Still {
        async fn send(&self, _: Any) -> Result<()> {
            Ok(())
        }

        async fn receive(&self) -> Result<Option<Any>> {
            Ok(None)
        }

        fn close(&self) {
            self.closed.store(true, Ordering::SeqCst);
        }
    }

    fn cx(namespace: &str) -> Context {
        Context::new(Namespace::parse(namespace).unwrap())
    }

    #[tokio::test]
    async fn a_name_is_taken_once_in_each_namespace() {
        let streams = StreamsService::default();
        let stream: Arc<dyn MessageStream> = Arc::new(Still::default());
        for cx in [cx("a"), cx("b"), Context::background()] {
            streams.register(&cx, "s", Arc::clone(&stream)).await.unwrap();
            let again = streams.register(&cx, "s", Arc::new(Still::default())).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists);
            assert!(Arc::ptr_eq(&streams.get(&cx, "s").await.unwrap(), &stream));
        }
        streams.remove(&cx("a"), "s", &(Arc::new(Still::default()) as Arc<dyn MessageStream>));
        assert!(streams.get(&cx("a"), "s").await.is_ok(), "another stream of that name is left alone");
        streams.remove(&cx("a"), "s", &stream);
        assert_eq!(streams.get(&cx("a"), "s").await.err().unwrap().kind(), ErrorKind::NotFound);
        let long = streams.register(&cx("a"), &"x".repeat(5000), stream).await.unwrap_err();
        assert_eq!(long.kind(), ErrorKind::InvalidArgument);
    }

    #[tokio::test]
    async fn only_leased_streams_are_collected_and_closed_then() {
        let streams = StreamsService::default();
        let (kept, gone) = (Arc::new(Still::default()), Arc::new(Still::default()));
        streams.register(&cx("a"), "kept", Arc::clone(&kept) as Arc<_>).await.unwrap();
        let leased = cx("a").with_lease(LeaseId::parse("l").unwrap());
        streams.register(&leased, "gone", Arc::clone(&gone) as Arc<_>).await.unwrap();
        let found = streams.collectables().await.unwrap();
        assert_eq!(found.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["gone"]);
        let outdated = vec![Collectable { id: 99, ..found[0].clone() }];
        streams.collect(outdated).await;
        assert!(!gone.closed.load(Ordering::SeqCst));
        streams.collect(found).await;
        assert!(gone.closed.load(Ordering::SeqCst) && !kept.closed.load(Ordering::SeqCst));
        assert!(streams.get(&cx("a"), "gone").await.is_err());
    }
}
