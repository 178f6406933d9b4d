//! Writes in progress: their records and their data.

use std::sync::Arc;

use gantry_core::content::IngestStatus;
use gantry_core::maintenance::check::{Outcome, Problem};
use gantry_core::maintenance::{ObjectKind, ObjectName};
use gantry_core::{Context, ErrorKind, IngestRef, Result};
use gantry_store::{Reading, Writing, params};

use super::{Checker, Draft, Mended, PAGE};
use crate::database::Inner;

/// A record.
#[derive(Clone, PartialEq, Eq)]
struct IngestRow {
    id: i64,
    namespace: String,
    reference: String,
    backend_ref: String,
    /// Whether it may become a blob that another namespace has, and needs no data.
    shares: bool,
}

/// So many records without data are told of one by one.
const MAX_TOLD: usize = 10_000;

impl Checker {
    pub(super) async fn ingests(&mut self) -> Result<()> {
        self.progress("writes in progress", 0, 0).await?;
        self.ingests_without_data().await?;
        self.ingests_without_record().await
    }

    async fn ingests_without_data(&mut self) -> Result<()> {
        let mut suspects = Vec::new();
        let mut after = 0;
        loop {
            let page = self.inner.ingest_page(after).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for row in page {
                self.summary.ingests += 1;
                if suspects.len() < MAX_TOLD && !row.shares && self.inner.has_no_data(&row).await? {
                    suspects.push(row);
                }
            }
        }
        if suspects.is_empty() {
            return Ok(());
        }
        // A writer makes its record first, then its data.
        self.before_second_look().await;
        for row in suspects {
            if self.inner.ingest_page(row.id - 1).await?.first() != Some(&row)
                || !self.inner.has_no_data(&row).await?
            {
                continue;
            }
            let object = ObjectName {
                kind: ObjectKind::Ingest,
                namespace: row.namespace.clone(),
                snapshotter: String::new(),
                name: row.reference.clone(),
            };
            let draft = Draft::new(Problem::IngestWithoutData).object(object);
            if !self.inner.is_stopped_root {
                let advice = "nothing is lost: it expires by itself, or is begun anew by its writer";
                self.found(draft, Outcome::Note, advice).await?;
                continue;
            }
            let inner = Arc::clone(&self.inner);
            let repair = async move {
                let write = move |db: &Writing<'_>| {
                    db.execute("DELETE FROM ingests WHERE id = ?1", params![row.id]).map(drop)
                };
                inner.delete(write).await?;
                Ok(Mended::Done("removed its record".to_owned()))
            };
            self.settle(draft, "removes its record", repair).await?;
        }
        Ok(())
    }

    async fn ingests_without_record(&mut self) -> Result<()> {
        let suspects = self.inner.ingests_without_record().await?;
        if suspects.is_empty() {
            return Ok(());
        }
        // An abort removes the record first, then the data.
        let inner = Arc::clone(&self.inner);
        let collections = inner.collector.pause().await;
        let removals = inner.removals.write().await;
        let mut again = inner.ingests_without_record().await?;
        again.retain(|status| suspects.iter().any(|first| first.reference == status.reference));
        again.retain(|status| !inner.garbage.knows_ingest(status.reference.as_str()));
        drop((removals, collections));
        for status in again {
            let object = ObjectName {
                kind: ObjectKind::Ingest,
                namespace: String::new(),
                snapshotter: String::new(),
                name: status.reference.to_string(),
            };
            let draft = Draft::new(Problem::IngestWithoutRecord).object(object);
            let draft = draft.detail(format!("{} bytes", status.offset_bytes));
            let inner = Arc::clone(&self.inner);
            let repair = async move {
                inner.remove_ingest(status.reference.as_str()).await?;
                Ok(Mended::Done("removed the data".to_owned()))
            };
            self.settle(draft, "removes the data", repair).await?;
        }
        Ok(())
    }
}

impl Inner {
    async fn ingest_page(&self, after: i64) -> Result<Vec<IngestRow>> {
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT id, namespace, ref, backend_ref, expected IS NOT NULL FROM ingests WHERE id > ?1 \
                       ORDER BY id LIMIT ?2";
            db.all(sql, params![after, PAGE as i64], |row| {
                Ok(IngestRow {
                    id: row.get(0)?,
                    namespace: row.get(1)?,
                    reference: row.get(2)?,
                    backend_ref: row.get(3)?,
                    shares: row.get(4)?,
                })
            })
        };
        self.store.read(read).await
    }

    async fn has_no_data(&self, row: &IngestRow) -> Result<bool> {
        let Ok(reference) = IngestRef::parse(row.backend_ref.as_str()) else { return Ok(true) };
        if self.content.files().is_some_and(|files| files.is_open(&reference)) {
            return Ok(false);
        }
        match self.content.status(&Context::background(), &reference).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            // Its data is there, but not as it should be: that is told of among the files.
            Err(_) => Ok(false),
        }
    }

    async fn ingests_without_record(&self) -> Result<Vec<IngestStatus>> {
        let mut open = self.content.statuses(&Context::background(), &[]).await?;
        let names = open.iter().map(|status| status.reference.to_string()).collect();
        let unknown = self.without_record("ingests", "backend_ref", names).await?;
        let unknown: std::collections::HashSet<String> = unknown.into_iter().collect();
        open.retain(|status| unknown.contains(status.reference.as_str()));
        Ok(open)
    }
}
