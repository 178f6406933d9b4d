//! Blobs under leases, and writes that are left and resumed.

use std::time::Duration;

use bytes::Bytes;
use gantry_core::content::{CommitContent, ContentWriter, OpenWriter};
use gantry_core::{Context, Digest, Error, ErrorKind, IngestRef, Labels, LeaseId, Result};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use super::Worker;
use crate::notes::{Kind, Note, Subject, There};

/// How many leases a client keeps.
const KEPT: usize = 3;
/// Into how many parts a write that is resumed is divided.
const PARTS: usize = 3;

/// How long a write that was let go of may stay locked.
const UNLOCKED: Duration = Duration::from_secs(2);

fn is_locked(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.to_string().contains(" locked for ")
}

/// The data of the blob `name`: anybody can make it again.
pub(crate) fn data(name: &str, length: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(length + 32);
    let mut block = Sha256::digest(name);
    while data.len() < length {
        data.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    data.truncate(length);
    data
}

pub(crate) fn digest_of(data: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(data))
}

impl Worker {
    /// Makes a lease with blobs, adds to one, or deletes one with all that it keeps, waiting for the collection.
    pub(super) async fn lease(&mut self) -> Result<()> {
        let own = self.notes.of(self.number, Kind::Lease);
        if own.len() >= KEPT {
            let (subject, _) = own[self.rng.random_range(0..own.len())].clone();
            return self.delete_lease(subject).await;
        }
        let lease = match self.pick(Kind::Lease) {
            Some((subject, _)) if self.rng.random() => subject.name,
            _ => self.new_lease().await?,
        };
        for _ in 0..self.rng.random_range(1..3) {
            let name = self.name("b");
            let length = self.rng.random_range(1..self.load.blob_bytes);
            self.blob(&lease, data(&name, length), Labels::new()).await?;
        }
        Ok(())
    }

    /// Deletes a lease with all that only it keeps, and waits for the collection.
    pub(super) async fn delete_lease(&mut self, subject: Subject) -> Result<()> {
        let leases = self.client.services().leases.clone();
        let mut changes: Vec<_> = self
            .notes
            .kept_by(&subject.namespace, &subject.name)
            .into_iter()
            .filter(|(_, note)| note.owners.len() == 1)
            .map(|(subject, note)| (subject, Note { there: There::No, ..note }))
            .collect();
        let id = LeaseId::parse(&*subject.name)?;
        changes.push((subject, self.no()));
        self.change(changes, leases.delete(&self.cx(), &id, true)).await
    }

    /// Makes a lease that keeps things until it is deleted.
    pub(super) async fn new_lease(&mut self) -> Result<String> {
        let name = self.name("l");
        let id = LeaseId::parse(&*name)?;
        let after = vec![(self.subject(Kind::Lease, &*name), self.yes(""))];
        let leases = self.client.services().leases.clone();
        self.change(after, leases.create(&self.cx(), Some(id), Labels::new())).await?;
        Ok(name)
    }

    /// Writes a blob that nobody else has, under a lease.
    pub(super) async fn blob(&mut self, lease: &str, data: Vec<u8>, labels: Labels) -> Result<Digest> {
        let digest = digest_of(&data);
        let cx = self.leased(lease)?;
        let note = self.yes(data.len().to_string()).owned(lease);
        let after = vec![(self.subject(Kind::Blob, digest.as_str()), note)];
        self.change(after, self.write(&cx, data, labels)).await?;
        Ok(digest)
    }

    /// Opens a write. One that this client has let go of may be locked until the daemon has seen the end of its stream.
    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        let end = tokio::time::Instant::now() + gantry_testkit::scaled(UNLOCKED);
        loop {
            match self.client.services().content.writer(cx, open.clone()).await {
                Err(error) if is_locked(&error) && tokio::time::Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other => return other,
            }
        }
    }

    /// Writes a blob in a few messages. One that is there already is fine.
    pub(super) async fn write(&self, cx: &Context, data: Vec<u8>, labels: Labels) -> Result<Digest> {
        let digest = digest_of(&data);
        let reference = IngestRef::parse(format!("w{}-{digest}", self.number))?;
        let open = OpenWriter { reference, total_bytes: data.len() as u64, expected: Some(digest.clone()) };
        let mut writer = match self.writer(cx, open).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(digest),
            other => other?,
        };
        let from = usize::try_from(writer.status().await?.offset_bytes).unwrap_or(usize::MAX);
        let rest = data.get(from..).ok_or_else(|| Error::internal("an ingest longer than its blob"))?;
        for part in rest.chunks(64 << 10) {
            writer.write(Bytes::copy_from_slice(part)).await?;
        }
        let how = CommitContent { total_bytes: data.len() as u64, expected: Some(digest.clone()), labels };
        match writer.commit(how).await {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(digest),
        }
    }

    /// Writes the next part of a write in progress, or commits it after the last.
    pub(super) async fn ingest(&mut self) -> Result<()> {
        let own = self.pick(Kind::Ingest);
        if let Some((subject, _)) = &own
            && self.rng.random_range(0..12) == 0
        {
            let reference = IngestRef::parse(&*subject.name)?;
            let content = self.client.services().content.clone();
            let after = vec![(subject.clone(), self.no())];
            return self.change(after, content.abort(&self.cx(), &reference)).await;
        }
        let (subject, written) = match own {
            Some((subject, note)) => (subject, note.facts.iter().filter_map(|fact| fact.parse().ok()).min()),
            None => {
                let name = self.name("i");
                (self.subject(Kind::Ingest, name), None)
            }
        };
        let total = 3000 * PARTS + subject.name.len();
        let data = data(&subject.name, total);
        let reference = IngestRef::parse(&*subject.name)?;
        let open = OpenWriter { reference, total_bytes: total as u64, expected: None };
        let known: usize = written.unwrap_or(0);
        let opened = vec![(subject.clone(), self.yes(known.to_string()))];
        let mut writer = self.change(opened, self.writer(&self.cx(), open)).await?;
        let offset = usize::try_from(writer.status().await?.offset_bytes).unwrap_or(usize::MAX);
        if offset < known || offset > total {
            let text = format!("ingest {:?} is at {offset}, {known} of {total} were answered", subject.name);
            self.course.violation(text);
        }
        let end = total.min(offset + total / PARTS + 1);
        let part = Bytes::copy_from_slice(data.get(offset..end).unwrap_or_default());
        let wrote = vec![(subject.clone(), self.yes(end.to_string()))];
        self.change(wrote, writer.write(part)).await?;
        if end < total {
            return Ok(());
        }
        // The lease comes with the commit: one that keeps only this blob.
        drop(writer);
        let lease = self.new_lease().await?;
        let digest = digest_of(&data);
        let cx = self.leased(&lease)?;
        let reference = IngestRef::parse(&*subject.name)?;
        let after = vec![
            (subject, self.no()),
            (self.subject(Kind::Blob, digest.as_str()), self.yes(total.to_string()).owned(&lease)),
        ];
        let commit = async {
            let open = OpenWriter { reference, total_bytes: total as u64, expected: Some(digest.clone()) };
            let mut writer = self.writer(&cx, open).await?;
            let how = CommitContent { total_bytes: 0, expected: Some(digest.clone()), labels: Labels::new() };
            writer.commit(how).await
        };
        self.change(after, commit).await.map(drop)
    }
}
