//! What a collection takes along that is kept elsewhere: streams, mounts.
//!
//! Such a thing keeps nothing else, so it is looked at last: what is still there after the sweep is alive, and whatever that
//! refers to is too.

use std::sync::{Arc, PoisonError};

use gantry_core::Result;
use gantry_core::collection::{Collectable, Collection};
use gantry_store::{Reading, params};

use super::edges::{find, namespace_of};
use super::mark::{Node, NodeKind};
use super::references::{Meaning, meaning};
use crate::database::Inner;

impl Inner {
    /// Lets collections look after `others` too.
    pub(crate) fn add_collection(&self, others: Arc<dyn Collection>) {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(others);
    }

    /// Collects what others keep; gives how many things went. What fails is logged and does not stop the rest.
    pub(super) async fn collect_others(&self) -> u64 {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut count = 0;
        for others in others {
            let gone = match self.dead_of(&*others).await {
                Ok(gone) => gone,
                Err(error) => {
                    tracing::warn!(kind = others.kind(), %error, "look for what is to be collected");
                    continue;
                }
            };
            count += gone.len() as u64;
            others.collect(gone).await;
        }
        count
    }

    async fn dead_of(&self, others: &dyn Collection) -> Result<Vec<Collectable>> {
        let (kind, all) = (others.kind(), others.collectables().await?);
        if all.is_empty() {
            return Ok(all);
        }
        self.store
            .read(move |db| {
                let mut dead = Vec::new();
                for item in all {
                    if !is_wanted(db, kind, &item)? {
                        dead.push(item);
                    }
                }
                Ok(dead)
            })
            .await
    }
}

fn is_wanted(db: &Reading<'_>, kind: &str, item: &Collectable) -> Result<bool> {
    if let Some(lease) = &item.lease {
        let sql = "SELECT 1 FROM leases WHERE namespace = ?1 AND name = ?2";
        if db.exists(sql, params![item.namespace, lease.as_str()])? {
            return Ok(true);
        }
    }
    for (key, value) in &item.labels {
        if let Meaning::BackReference(target) = meaning(key, value)
            && find(db, &item.namespace, &target)?.is_some()
        {
            return Ok(true);
        }
    }
    is_referenced(db, kind, item)
}

/// Labels that keep what others have. The condition is that of the partial index, to the letter.
pub(super) const OTHER_REFERENCES: &str = "SELECT kind, owner, key FROM labels WHERE value = ?1 \
     AND ((key >= 'containerd.io/gc.ref.mount' AND key < 'containerd.io/gc.ref.mounu') \
     OR (key >= 'containerd.io/gc.ref.stream' AND key < 'containerd.io/gc.ref.strean'))";

/// Whether some object of its namespace has a label `containerd.io/gc.ref.<kind>` with its name.
fn is_referenced(db: &Reading<'_>, kind: &str, item: &Collectable) -> Result<bool> {
    let owners: Vec<(i64, i64, String)> =
        db.all(OTHER_REFERENCES, params![item.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (owner, id, key) in owners {
        let suffix = key.strip_prefix("containerd.io/gc.ref.").and_then(|rest| rest.strip_prefix(kind));
        if !suffix.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with(['.', '/'])) {
            continue;
        }
        let Some(kind) = NodeKind::of_owner(owner) else { continue };
        if namespace_of(db, Node { kind, id })?.as_deref() == Some(&item.namespace) {
            return Ok(true);
        }
    }
    Ok(false)
}
