//! When garbage is collected: after removals and many changes, with pauses in between, and when something expires.
//!
//! Source: features A13 and E59 for the parameters; the clock is ours (semantics, "Where gantry differs on purpose").

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_core::Result;
use gantry_store::Reading;
use tokio::sync::Notify;

use crate::collection::time_of;
use crate::database::Inner;
use crate::labels::Owner;

/// The section `io.containerd.gc.v1.scheduler`.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionConfig {
    /// The largest part of time that collections may take; 0.02 by default, 0.5 at most, 0 for no pauses but a second.
    pub pause_threshold: f64,
    /// So many removals have a collection follow at once; 0, the default, leaves it to the pauses.
    pub deletion_threshold: u32,
    /// So many changes of any kind have a collection follow; 100 by default, 0 for never.
    pub mutation_threshold: u32,
    /// How long to wait once a collection is due; 0 by default.
    pub schedule_delay: Duration,
    /// How long after the start the first collection is; 100 ms by default, 0 for none.
    pub startup_delay: Duration,
}

impl Default for CollectionConfig {
    fn default() -> Self {
        CollectionConfig {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: Duration::ZERO,
            startup_delay: Duration::from_millis(100),
        }
    }
}

/// A collection is taken to last this long at least, so that the next one does not follow at once.
///
/// Source: containerd's minimum of 5 ms.
const SHORTEST: Duration = Duration::from_millis(5);

/// After changes, what may expire is looked up again, but not more often than this.
const EXPIRY_LOOKUP: Duration = Duration::from_secs(1);

/// And at least this often.
const EXPIRY_LOOKUP_IDLE: Duration = Duration::from_secs(3600);

/// What has happened since the last collection began.
#[derive(Default)]
pub(crate) struct Pending {
    mutations: AtomicU32,
    deletions: AtomicU32,
    changed: Notify,
    /// A snapshot was committed, and is to be made durable.
    pub(crate) committed: Notify,
}

impl Pending {
    pub(crate) fn mutated(&self) {
        self.mutations.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(crate) fn deleted(&self) {
        self.deletions.fetch_add(1, Ordering::Relaxed);
        self.mutated();
    }

    /// A collection begins: it sees all that has happened.
    pub(crate) fn begin(&self) {
        self.mutations.store(0, Ordering::Relaxed);
        self.deletions.store(0, Ordering::Relaxed);
    }
}

/// What the scheduler goes by.
struct Schedule {
    config: CollectionConfig,
    started: Instant,
    /// When the last collection ended.
    last: Option<Instant>,
    /// The pause after it.
    pause: Duration,
    total: Duration,
    collections: u32,
    /// When the first thing expires.
    expiry: Option<Instant>,
}

impl Schedule {
    fn new(config: CollectionConfig) -> Self {
        let pause = Duration::from_secs(1);
        Schedule {
            config,
            started: Instant::now(),
            last: None,
            pause,
            total: Duration::ZERO,
            collections: 0,
            expiry: None,
        }
    }

    /// When the next collection is to begin, if nothing else happens.
    fn next(&self, mutations: u32, deletions: u32, now: Instant) -> Option<Instant> {
        let config = &self.config;
        let first = (self.last.is_none() && !config.startup_delay.is_zero())
            .then(|| self.started + config.startup_delay);
        let paused_until = self.last.map_or(self.started, |last| last + self.pause);
        if config.deletion_threshold > 0 && deletions >= config.deletion_threshold {
            return Some(now + config.schedule_delay);
        }
        let due = deletions > 0 || (config.mutation_threshold > 0 && mutations >= config.mutation_threshold);
        // Source: containerd's scheduler: what is scheduled already, as the first one is, is not brought forward.
        let due = (due && first.is_none()).then(|| paused_until.max(now) + config.schedule_delay);
        let expired = self.expiry.map(|expiry| expiry.max(paused_until));
        [first, due, expired].into_iter().flatten().min()
    }

    fn ended(&mut self, elapsed: Option<Duration>) {
        let now = Instant::now();
        match elapsed {
            Some(elapsed) => {
                self.total += elapsed;
                self.collections += 1;
                let average = (self.total / self.collections).max(SHORTEST);
                let share = self.config.pause_threshold.clamp(0.0, 0.5);
                if share > 0.0 {
                    self.pause = average.div_f64(share).saturating_sub(average);
                }
            }
            // A failure is tried again, but not soon.
            None => self.pause += Duration::from_secs(1),
        }
        self.last = Some(now);
    }
}

impl Inner {
    /// Collects when it is time to. Never ends.
    pub(crate) async fn schedule_collections(self: &Arc<Self>) {
        let mut schedule = Schedule::new(self.config.collection.clone());
        let mut lookup = Some(Instant::now());
        loop {
            let now = Instant::now();
            if lookup.is_some_and(|at| at <= now) {
                // Again by and by, since the machine's clock may be set.
                lookup = Some(now + EXPIRY_LOOKUP_IDLE);
                let changed = self.pending.mutations.load(Ordering::Relaxed) > 0;
                match self.store.read(move |db| first_expiry(db, changed)).await {
                    Ok(first) => schedule.expiry = first.map(|at| instant_of(at, now)),
                    Err(error) => tracing::warn!(%error, "look for what expires first"),
                }
            }
            let mutations = self.pending.mutations.load(Ordering::Relaxed);
            let deletions = self.pending.deletions.load(Ordering::Relaxed);
            let next = schedule.next(mutations, deletions, now);
            if next.is_some_and(|next| next <= now) {
                let outcome = self.collect().await;
                if let Err(error) = &outcome {
                    tracing::error!(%error, "collect garbage");
                }
                schedule.ended(outcome.ok().map(|stats| stats.elapsed));
                lookup = Some(Instant::now());
                continue;
            }
            let wake = [next, lookup].into_iter().flatten().min();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Both only wait; the counters keep what a dropped wait would have told.
                () = sleep => {}
                () = self.pending.changed.notified() => {
                    let soon = Instant::now() + EXPIRY_LOOKUP;
                    lookup = Some(lookup.map_or(soon, |at| at.min(soon)));
                }
            }
        }
    }
}

/// The point in time `at`, which may have passed.
fn instant_of(at: SystemTime, now: Instant) -> Instant {
    let wait = at.duration_since(SystemTime::now()).unwrap_or_default();
    now.checked_add(wait).unwrap_or_else(|| now + EXPIRY_LOOKUP_IDLE)
}

/// When the first lease, image or ingest expires, or a label's protection of content or snapshots ends.
///
/// What has expired already is gone after a collection, unless something else keeps it; so it counts only if anything was
/// `changed` since, or collections would follow one another for nothing.
fn first_expiry(db: &Reading<'_>, changed: bool) -> Result<Option<SystemTime>> {
    let now = SystemTime::now();
    let mut first: Option<SystemTime> = None;
    let mut consider = |at: SystemTime, mortal: bool| {
        if at > now || (changed && mortal) {
            first = Some(first.map_or(at, |first| first.min(at)));
        }
    };
    let sql = "SELECT kind, value FROM labels WHERE (key = 'containerd.io/gc.expire' OR \
               (key >= 'containerd.io/gc.root' AND key < 'containerd.io/gc.roou')) AND key = 'containerd.io/gc.expire'";
    db.each(sql, [], |row| {
        let owner = Owner::from_number(row.get(0)?);
        if let Some(at) = time_of(&row.get::<String>(1)?) {
            consider(at + Duration::from_millis(1), matches!(owner, Some(Owner::Image | Owner::Lease)));
        }
        Ok(())
    })?;
    let ingest = db.one("SELECT min(expires) FROM ingests", [], |row| row.get::<Option<i64>>(0))?.flatten();
    if let Some(at) = ingest
        .and_then(|seconds| u64::try_from(seconds).ok())
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + Duration::from_secs(1)))
    {
        consider(at, true);
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_one_collection(config: CollectionConfig) -> Schedule {
        let mut schedule = Schedule::new(config);
        schedule.ended(Some(Duration::from_millis(1)));
        schedule
    }

    #[test]
    fn a_removal_is_collected_once_the_pause_is_over() {
        let schedule = after_one_collection(CollectionConfig::default());
        let last = schedule.last.unwrap();
        // Source: features E59: the average, at least 5 ms, by 0.02, less the average.
        assert_eq!(schedule.pause, Duration::from_millis(245));
        assert_eq!(schedule.next(0, 0, last), None);
        assert_eq!(schedule.next(99, 0, last), None);
        assert_eq!(schedule.next(1, 1, last), Some(last + schedule.pause));
        assert_eq!(schedule.next(100, 0, last), Some(last + schedule.pause));
    }

    #[test]
    fn many_removals_do_not_wait_for_the_pause_if_so_configured() {
        let config = CollectionConfig { deletion_threshold: 3, ..CollectionConfig::default() };
        let schedule = after_one_collection(config);
        let last = schedule.last.unwrap();
        assert_eq!(schedule.next(2, 2, last), Some(last + schedule.pause));
        assert_eq!(schedule.next(3, 3, last), Some(last));
    }

    #[test]
    fn an_expiry_needs_no_change() {
        let mut schedule = after_one_collection(CollectionConfig::default());
        let last = schedule.last.unwrap();
        schedule.expiry = Some(last + Duration::from_secs(60));
        assert_eq!(schedule.next(0, 0, last), schedule.expiry);
        schedule.expiry = Some(last);
        assert_eq!(schedule.next(0, 0, last), Some(last + schedule.pause));
    }

    #[test]
    fn the_first_collection_follows_the_start() {
        let schedule = Schedule::new(CollectionConfig::default());
        assert_eq!(
            schedule.next(0, 0, schedule.started),
            Some(schedule.started + Duration::from_millis(100))
        );
        let config = CollectionConfig { startup_delay: Duration::ZERO, ..CollectionConfig::default() };
        let schedule = Schedule::new(config);
        assert_eq!(schedule.next(0, 0, schedule.started), None);
        assert_eq!(schedule.next(0, 1, schedule.started), Some(schedule.started));
    }

    #[test]
    fn a_removal_does_not_bring_the_first_collection_forward() {
        let schedule = Schedule::new(CollectionConfig::default());
        let first = schedule.started + Duration::from_millis(100);
        assert_eq!(schedule.next(1, 1, schedule.started), Some(first));
    }
}
