//! containerd's `meta.db`: what lies in which bucket.
//!
//! ```text
//! v1 / version
//! v1 / <namespace> / labels | containers | images | content/blob | content/ingests | snapshots/<snapshotter> | leases | sandboxes
//! ```
//!
//! Source: the schema as containerd documents it, versions v1.1 to v1.4; where older minor versions keep ingests (`content/ingest`)
//! and sandboxes (beside `v1`) is read as well.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gantry_bolt::{Bucket, Database, Item};
use gantry_core::containers::{Container, ContainerRuntime};
use gantry_core::content::ContentInfo;
use gantry_core::images::Image;
use gantry_core::leases::{Lease, LeaseResource};
use gantry_core::sandboxes::Sandbox;
use gantry_core::{
    ContainerId, Descriptor, Digest, Error, ErrorKind, IngestRef, Labels, LeaseId, Namespace, Result,
    SandboxId,
};

use super::fields::{
    any_at, buckets, extensions, malformed, map_at, names_at, number_at, signed, text, text_at, time_at,
};
use super::report::{Problem, Report};

/// The minor versions of the schema that are known. 4 is that of containerd 2.
const VERSIONS: std::ops::RangeInclusive<i64> = 1..=4;
/// From here on ingests have buckets of their own.
const STRUCTURED_INGESTS: i64 = 2;
/// From here on sandboxes lie with the other records of their namespace.
const SANDBOXES_WITHIN: i64 = 4;

/// Everything of one namespace.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) labels: Labels,
    pub(super) containers: Vec<Container>,
    pub(super) images: Vec<Image>,
    pub(super) blobs: Vec<ContentInfo>,
    pub(super) ingests: Vec<Ingest>,
    pub(super) leases: Vec<(Lease, Vec<LeaseResource>)>,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) snapshots: Vec<Named>,
}

/// A write in progress.
#[derive(Debug)]
pub(super) struct Ingest {
    pub(super) reference: IngestRef,
    pub(super) backend_ref: IngestRef,
    pub(super) expected: Option<Digest>,
    pub(super) expires: Option<SystemTime>,
}

/// A snapshot's name; what it is is known to its snapshotter.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) snapshotter: String,
    pub(super) key: String,
    /// The snapshotter's own name for it.
    pub(super) backend: String,
    pub(super) parent: Option<String>,
    pub(super) labels: Labels,
    pub(super) created_at: SystemTime,
    pub(super) updated_at: SystemTime,
}

/// Reads the whole of `database`; records that make no sense are reported.
///
/// # Errors
/// `FailedPrecondition` for a schema that is not known; `DataLoss` if the file is damaged.
pub(super) fn read(database: &Database, report: &mut Report) -> Result<BTreeMap<Namespace, Records>> {
    let root = database.root()?;
    let mut found = BTreeMap::new();
    let Some(schema) = root.bucket("v1")? else {
        return match root.entries().next() {
            None => Ok(found),
            Some(entry) => Err(unknown(database, &format!("{:?}", String::from_utf8_lossy(&entry?.0)))),
        };
    };
    let version = schema.get("version")?.as_deref().and_then(signed).unwrap_or(0);
    if !VERSIONS.contains(&version) {
        return Err(unknown(database, &format!("v1.{version}")));
    }
    report.schema = format!("v1.{version}");
    for entry in buckets(&schema) {
        let (name, bucket) = entry?;
        let Some(name) = namespace(name, report) else { continue };
        let records = Reader { namespace: &name, report, version }.records(&bucket)?;
        found.insert(name, records);
    }
    for entry in root.entries() {
        let (name, item) = entry?;
        match item {
            _ if name == b"v1" => {}
            Item::Bucket(bucket) if version < SANDBOXES_WITHIN => {
                let Some(name) = namespace(name, report) else { continue };
                let sandboxes = Reader { namespace: &name, report, version }.sandboxes(&bucket)?;
                found.entry(name).or_default().sandboxes.extend(sandboxes);
            }
            _ => return Err(unknown(database, &format!("{:?}", String::from_utf8_lossy(&name)))),
        }
    }
    Ok(found)
}

fn unknown(database: &Database, what: &str) -> Error {
    let known = format!("v1.{} to v1.{}", VERSIONS.start(), VERSIONS.end());
    Error::failed_precondition(format!(
        "{} has the schema {what}, and {known} are known: it cannot be taken over",
        database.path().display()
    ))
}

fn namespace(name: Vec<u8>, report: &mut Report) -> Option<Namespace> {
    let shown = String::from_utf8_lossy(&name).into_owned();
    match text(name, "namespace").and_then(Namespace::parse) {
        Ok(name) => Some(name),
        Err(error) => {
            report.add(Problem::damaged(format!("namespace {shown:?}: {error}")));
            None
        }
    }
}

struct Reader<'a> {
    namespace: &'a Namespace,
    report: &'a mut Report,
    version: i64,
}

impl Reader<'_> {
    fn records(mut self, bucket: &Bucket<'_>) -> Result<Records> {
        let labels = map_at(bucket, "labels").or_else(|error| {
            self.set_aside("labels of the namespace", b"", error)?;
            Ok::<_, Error>(Labels::new())
        })?;
        let content = bucket.bucket("content")?;
        let mut ingests = self.each(content.as_ref(), "ingests", "ingest", ingest)?;
        if self.version < STRUCTURED_INGESTS {
            ingests.extend(self.old_ingests(content.as_ref())?);
        }
        let mut snapshots = Vec::new();
        if let Some(all) = bucket.bucket("snapshots")? {
            for entry in buckets(&all) {
                let (name, _) = entry?;
                let snapshotter = String::from_utf8_lossy(&name).into_owned();
                let read = |key: String, bucket: &Bucket<'_>| snapshot(&snapshotter, key, bucket);
                snapshots.extend(self.each_by(&all, &name, "snapshot", read)?);
            }
        }
        Ok(Records {
            labels,
            containers: self.each(Some(bucket), "containers", "container", container)?,
            images: self.each(Some(bucket), "images", "image", image)?,
            blobs: self.each(content.as_ref(), "blob", "blob", blob)?,
            ingests,
            leases: self.each(Some(bucket), "leases", "lease", lease)?,
            sandboxes: self.sandboxes(bucket)?,
            snapshots,
        })
    }

    fn sandboxes(&mut self, bucket: &Bucket<'_>) -> Result<Vec<Sandbox>> {
        self.each(Some(bucket), "sandboxes", "sandbox", sandbox)
    }

    fn each<T>(
        &mut self,
        above: Option<&Bucket<'_>>,
        key: &str,
        noun: &str,
        read: impl Fn(String, &Bucket<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        match above {
            Some(above) => self.each_by(above, key.as_bytes(), noun, read),
            None => Ok(Vec::new()),
        }
    }

    /// Reads every bucket within the bucket `key`; a record that makes no sense is set aside.
    fn each_by<T>(
        &mut self,
        above: &Bucket<'_>,
        key: &[u8],
        noun: &str,
        read: impl Fn(String, &Bucket<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let Some(all) = above.bucket(key)? else { return Ok(found) };
        for entry in buckets(&all) {
            let (name, bucket) = entry?;
            match text(name.clone(), "its name").and_then(|name| read(name, &bucket)) {
                Ok(record) => found.push(record),
                Err(error) => self.set_aside(noun, &name, error)?,
            }
        }
        Ok(found)
    }

    /// Source: the layout before v1.2: the ref, and the content store's name for it.
    fn old_ingests(&mut self, content: Option<&Bucket<'_>>) -> Result<Vec<Ingest>> {
        let mut found = Vec::new();
        let Some(old) = content.map(|content| content.bucket("ingest")).transpose()?.flatten() else {
            return Ok(found);
        };
        for entry in old.entries() {
            if let (name, Item::Value(value)) = entry? {
                let read = || {
                    let reference = IngestRef::parse(text(name.clone(), "ref")?)?;
                    let backend_ref = IngestRef::parse(text(value, "ref")?)?;
                    Ok(Ingest { reference, backend_ref, expected: None, expires: None })
                };
                match read() {
                    Ok(ingest) => found.push(ingest),
                    Err(error) => self.set_aside("ingest", &name, error)?,
                }
            }
        }
        Ok(found)
    }

    /// Reports one record that makes no sense; an error of the file itself ends the reading.
    fn set_aside(&mut self, noun: &str, name: &[u8], error: Error) -> Result<()> {
        if error.kind() != ErrorKind::InvalidArgument {
            return Err(error);
        }
        let name = String::from_utf8_lossy(name);
        let text = format!("{noun} {name:?} of namespace {}: {error}", self.namespace);
        self.report.add(Problem::damaged(text));
        Ok(())
    }
}

fn runtime(bucket: &Bucket<'_>) -> Result<ContainerRuntime> {
    match bucket.bucket("runtime")? {
        Some(runtime) => {
            Ok(ContainerRuntime { name: text_at(&runtime, "name")?, options: any_at(&runtime, "options")? })
        }
        None => Ok(ContainerRuntime::default()),
    }
}

fn container(id: String, bucket: &Bucket<'_>) -> Result<Container> {
    Ok(Container {
        id: ContainerId::parse(id)?,
        labels: map_at(bucket, "labels")?,
        image: text_at(bucket, "image")?,
        runtime: runtime(bucket)?,
        spec: any_at(bucket, "spec")?,
        snapshotter: text_at(bucket, "snapshotter")?,
        snapshot_key: text_at(bucket, "snapshotKey")?,
        created_at: time_at(bucket, "createdat")?,
        updated_at: time_at(bucket, "updatedat")?,
        extensions: extensions(bucket)?,
        sandbox: text_at(bucket, "sandboxid")?,
    })
}

fn sandbox(id: String, bucket: &Bucket<'_>) -> Result<Sandbox> {
    Ok(Sandbox {
        id: SandboxId::parse(id)?,
        labels: map_at(bucket, "labels")?,
        runtime: runtime(bucket)?,
        spec: any_at(bucket, "spec")?,
        sandboxer: text_at(bucket, "sandboxer")?,
        created_at: time_at(bucket, "createdat")?,
        updated_at: time_at(bucket, "updatedat")?,
        extensions: extensions(bucket)?,
    })
}

fn image(name: String, bucket: &Bucket<'_>) -> Result<Image> {
    let target = bucket.bucket("target")?.ok_or_else(|| malformed("target is missing"))?;
    Ok(Image {
        name,
        labels: map_at(bucket, "labels")?,
        target: Descriptor {
            media_type: text_at(&target, "mediatype")?,
            digest: Digest::parse(text_at(&target, "digest")?)?,
            size_bytes: number_at(&target, "size")?,
            annotations: map_at(bucket, "annotations")?,
        },
        created_at: time_at(bucket, "createdat")?,
        updated_at: time_at(bucket, "updatedat")?,
    })
}

fn blob(digest: String, bucket: &Bucket<'_>) -> Result<ContentInfo> {
    let size = number_at(bucket, "size")?;
    Ok(ContentInfo {
        digest: Digest::parse(digest)?,
        size_bytes: u64::try_from(size).map_err(|_| malformed(format!("size {size}")))?,
        created_at: time_at(bucket, "createdat")?,
        updated_at: time_at(bucket, "updatedat")?,
        labels: map_at(bucket, "labels")?,
    })
}

fn ingest(reference: String, bucket: &Bucket<'_>) -> Result<Ingest> {
    let expected = text_at(bucket, "expected")?;
    let expires = bucket.get("expireat")?.is_some().then(|| time_at(bucket, "expireat")).transpose()?;
    Ok(Ingest {
        reference: IngestRef::parse(reference)?,
        backend_ref: IngestRef::parse(text_at(bucket, "ref")?)?,
        expected: (!expected.is_empty()).then(|| Digest::parse(expected)).transpose()?,
        expires,
    })
}

fn lease(id: String, bucket: &Bucket<'_>) -> Result<(Lease, Vec<LeaseResource>)> {
    let lease = Lease {
        id: LeaseId::parse(id)?,
        created_at: time_at(bucket, "createdat")?,
        labels: map_at(bucket, "labels")?,
    };
    let mut resources = Vec::new();
    for kind in ["content", "images", "ingests"] {
        let ids = names_at(bucket, kind)?.into_iter();
        resources.extend(ids.map(|id| LeaseResource { id, kind: kind.to_owned() }));
    }
    if let Some(snapshots) = bucket.bucket("snapshots")? {
        for snapshotter in names_at(bucket, "snapshots")? {
            let ids = names_at(&snapshots, &snapshotter)?.into_iter();
            resources.extend(ids.map(|id| LeaseResource::snapshot(&snapshotter, id)));
        }
    }
    Ok((lease, resources))
}

fn snapshot(snapshotter: &str, key: String, bucket: &Bucket<'_>) -> Result<Named> {
    let parent = text_at(bucket, "parent")?;
    if key.is_empty() {
        return Err(malformed("an empty key"));
    }
    Ok(Named {
        snapshotter: snapshotter.to_owned(),
        key,
        backend: text_at(bucket, "name")?,
        parent: (!parent.is_empty()).then_some(parent),
        labels: map_at(bucket, "labels")?,
        created_at: time_at(bucket, "createdat")?,
        updated_at: time_at(bucket, "updatedat")?,
    })
}
