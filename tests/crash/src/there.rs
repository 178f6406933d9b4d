//! Everything that a daemon has, asked over its socket.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::TryStreamExt as _;
use gantry_client::Client;
use gantry_core::sandboxes::SandboxStore as _;
use gantry_core::snapshots::SnapshotInfo;
use gantry_core::{Labels, Namespace, Result};
use gantry_rpc::sandboxes::RemoteSandboxes;

use crate::load::{IMAGE_SNAPSHOTTERS, VERSION};
use crate::notes::{Kind, Subject};

/// What is there, each with what its data is.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) subjects: BTreeMap<Subject, String>,
    pub(crate) snapshots: BTreeMap<Subject, SnapshotInfo>,
}

impl Found {
    /// Whether a lease or an image of this name is there.
    pub(crate) fn is_there(&self, namespace: &str, owner: &str) -> bool {
        let has = |kind| self.subjects.contains_key(&Subject::new(kind, namespace, owner));
        has(Kind::Lease) || has(Kind::Image)
    }

    pub(crate) fn names(&self, kind: Kind) -> BTreeSet<String> {
        let of = self.subjects.keys().filter(|subject| subject.kind == kind);
        of.map(|subject| subject.name.clone()).collect()
    }
}

fn version(labels: &Labels) -> String {
    labels.get(VERSION).cloned().unwrap_or_default()
}

/// Asks for everything in every namespace. Namespaces themselves are noted in none.
///
/// # Errors
/// Those of the daemon.
pub(crate) async fn look(client: &Client, address: &Path) -> Result<Found> {
    let mut found = Found::default();
    let namespaces = client.services().namespaces.list(&client.context()).await?;
    let sandboxes = RemoteSandboxes::new(gantry_rpc::connect(address)?);
    for record in &namespaces {
        let subject = Subject::new(Kind::Namespace, "", record.name.as_str());
        found.subjects.insert(subject, version(&record.labels));
    }
    for record in namespaces {
        let client = client.in_namespace(Namespace::parse(record.name.as_str())?);
        one(&client, &sandboxes, &mut found).await?;
    }
    Ok(found)
}

async fn one(client: &Client, sandboxes: &RemoteSandboxes, found: &mut Found) -> Result<()> {
    let (cx, services) = (client.context(), client.services());
    let namespace = client.namespace().to_string();
    let mut add = |kind: Kind, name: String, fact: String| {
        found.subjects.insert(Subject::new(kind, &namespace, name), fact);
    };
    let containers: Vec<_> = services.containers.list(&cx, &[]).await?.try_collect().await?;
    for container in containers {
        add(Kind::Container, container.id.to_string(), version(&container.labels));
    }
    for sandbox in sandboxes.list(&cx, &[]).await? {
        add(Kind::Sandbox, sandbox.id.to_string(), version(&sandbox.labels));
    }
    for lease in services.leases.list(&cx, &[]).await? {
        add(Kind::Lease, lease.id.to_string(), String::new());
    }
    let images: Vec<_> = services.images.list(&cx, &[]).await?.try_collect().await?;
    for image in images {
        add(Kind::Image, image.name, String::new());
    }
    let blobs: Vec<_> = services.content.list(&cx, &[]).await?.try_collect().await?;
    for blob in blobs {
        add(Kind::Blob, blob.digest.to_string(), blob.size_bytes.to_string());
    }
    for ingest in services.content.statuses(&cx, &[]).await? {
        add(Kind::Ingest, ingest.reference.to_string(), ingest.offset_bytes.to_string());
    }
    for task in services.tasks.list(&cx).await? {
        add(Kind::Task, task.id.clone(), task.pid.to_string());
    }
    for snapshotter in IMAGE_SNAPSHOTTERS {
        let service = client.snapshotter(snapshotter)?;
        let infos: Vec<SnapshotInfo> = service.list(&cx, &[]).await?.try_collect().await?;
        for info in infos {
            let subject = Subject::new(Kind::Snapshot, &namespace, format!("{snapshotter}/{}", info.name));
            found.subjects.insert(subject.clone(), info.kind.as_str().to_owned());
            found.snapshots.insert(subject, info);
        }
    }
    Ok(())
}
