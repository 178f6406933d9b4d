//! Containers that run: a few for ever, others for a moment.

use gantry_client::{Client, ContainerOptions, DeleteContainer, IoRequest};
use gantry_core::images::Image;
use gantry_core::wire_names::{LABEL_GC_REF_CONTENT, LABEL_GC_ROOT};
use gantry_core::{ContainerId, Descriptor, Digest, Error, ErrorKind, Labels, Result};
use gantry_oci::{PlatformMatcher, SpecOptions};
use gantry_testkit::busybox_image;
use rand::Rng as _;

use super::Worker;
use crate::notes::{Kind, Note, There};

/// The namespace of the containers that run.
pub(crate) const RUN_NAMESPACE: &str = "run";
const IMAGE: &str = "docker.io/library/busybox:latest";
/// How many containers run for ever.
const KEPT: usize = 2;

/// Stores and unpacks the image that containers run, unless it is there.
///
/// # Errors
/// Those of the daemon.
pub(crate) async fn prepare_image(client: &Client) -> Result<()> {
    let host = PlatformMatcher::host();
    match client.image(IMAGE).await {
        Ok(image) => return image.unpack("overlayfs", &host).await,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let built = busybox_image();
    let content = &client.services().content;
    for blob in built.layers.iter().chain([&built.config, &built.manifest]) {
        let mut labels = Labels::from([(LABEL_GC_ROOT.to_owned(), "kept".to_owned())]);
        if blob.digest == built.manifest.digest {
            for (number, child) in built.blobs().skip(1).enumerate() {
                labels.insert(format!("{LABEL_GC_REF_CONTENT}.{number}"), child.digest.clone());
            }
        }
        store(&**content, client, &blob.digest, &blob.bytes, labels).await?;
    }
    let size = i64::try_from(built.manifest.bytes.len()).unwrap_or(i64::MAX);
    let target = Descriptor::new(&*built.manifest.media_type, Digest::parse(&*built.manifest.digest)?, size);
    let now = std::time::UNIX_EPOCH;
    let record =
        Image { name: IMAGE.to_owned(), labels: Labels::new(), target, created_at: now, updated_at: now };
    client.services().images.create(&client.context(), record, None).await?;
    client.image(IMAGE).await?.unpack("overlayfs", &host).await
}

async fn store(
    content: &dyn gantry_core::content::ContentStore,
    client: &Client,
    digest: &str,
    bytes: &[u8],
    labels: Labels,
) -> Result<()> {
    use gantry_core::content::{CommitContent, OpenWriter};
    let digest = Digest::parse(digest)?;
    let reference = gantry_core::IngestRef::parse(format!("prepare-{digest}"))?;
    let open = OpenWriter { reference, total_bytes: 0, expected: Some(digest.clone()) };
    let mut writer = match content.writer(&client.context(), open).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    };
    writer.truncate(0).await?;
    writer.write(bytes::Bytes::copy_from_slice(bytes)).await?;
    writer.commit(CommitContent { total_bytes: 0, expected: Some(digest), labels }).await.map(drop)
}

impl Worker {
    pub(super) async fn task(&mut self) -> Result<()> {
        let running = self.notes.of(self.number, Kind::Task);
        if running.len() < KEPT {
            return self.run_for_ever().await;
        }
        if self.rng.random_range(0..8) == 0 {
            let (subject, _) = running[0].clone();
            return self.end(&subject.name).await;
        }
        self.run_a_moment().await
    }

    async fn new_container(&mut self, command: &[&str]) -> Result<gantry_client::Container> {
        let name = self.name("t");
        let options = ContainerOptions {
            image: Some(self.client.image(IMAGE).await?),
            snapshotter: Some("overlayfs".to_owned()),
            spec: SpecOptions {
                command: command.iter().map(ToString::to_string).collect(),
                ..SpecOptions::default()
            },
            ..ContainerOptions::default()
        };
        let snapshot = self.subject(Kind::Snapshot, format!("overlayfs/{name}"));
        let after = vec![
            (self.subject(Kind::Container, &*name), Note { facts: Vec::new(), ..self.yes("") }),
            (snapshot, self.yes("active ")),
        ];
        let id = ContainerId::parse(&*name)?;
        let made = self.change(after, self.client.new_container(id, options)).await;
        if let Err(error) = &made
            && error.kind() == ErrorKind::ResourceExhausted
        {
            // Its snapshot and its record are two calls, and the client may not have been able to undo the first.
            let unknown = Note { there: There::Perhaps, facts: Vec::new(), ..self.yes("") };
            self.notes.set(vec![
                (self.subject(Kind::Container, &*name), unknown.clone()),
                (self.subject(Kind::Snapshot, format!("overlayfs/{name}")), unknown),
            ]);
        }
        made
    }

    async fn run_for_ever(&mut self) -> Result<()> {
        let container = self.new_container(&["sleep", "1000000"]).await?;
        let subject = self.subject(Kind::Task, container.id().as_str());
        let unknown = Note { there: There::Perhaps, ..self.no() };
        self.notes.set(vec![(subject.clone(), unknown)]);
        let task = container.new_task(IoRequest::Null).await?;
        task.start().await?;
        self.notes.set(vec![(subject, self.yes(task.pid().to_string()))]);
        Ok(())
    }

    /// A container that ends by itself: its status is right, and it is gone afterwards.
    async fn run_a_moment(&mut self) -> Result<()> {
        let status = self.rng.random_range(0..4_u32);
        let container = self.new_container(&["sh", "-c", &format!("exit {status}")]).await?;
        let subject = self.subject(Kind::Task, container.id().as_str());
        self.notes.set(vec![(subject.clone(), Note { there: There::Perhaps, ..self.no() })]);
        let task = container.new_task(IoRequest::Null).await?;
        task.start().await?;
        let exit = task.wait().await?;
        if exit.status != status {
            self.course.violation(format!(
                "{:?} ended with {status}, reported {}",
                container.id(),
                exit.status
            ));
        }
        task.delete().await?;
        self.notes.set(vec![(subject, self.no())]);
        self.delete(container).await
    }

    async fn end(&mut self, name: &str) -> Result<()> {
        let container = self.client.load_container(name).await?;
        let task = container.task().await?;
        let subject = self.subject(Kind::Task, name);
        self.notes.set(vec![(subject.clone(), Note { there: There::Perhaps, ..self.no() })]);
        task.kill_and_delete().await?;
        self.notes.set(vec![(subject, self.no())]);
        self.delete(container).await
    }

    async fn delete(&mut self, container: gantry_client::Container) -> Result<()> {
        let name = container.id().to_string();
        let after = vec![
            (self.subject(Kind::Container, &*name), self.no()),
            (self.subject(Kind::Snapshot, format!("overlayfs/{name}")), self.no()),
        ];
        self.change(after, container.delete(DeleteContainer { snapshot: true })).await
    }
}

/// Removes what an interrupted client left of a container, as a tidy user would.
///
/// # Errors
/// Those of the daemon.
pub(crate) async fn remove(client: &Client, name: &str) -> Result<()> {
    let gone = |error: Error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
    match client.load_container(name).await {
        Err(error) => gone(error),
        Ok(container) => {
            match container.task().await {
                Ok(task) => drop(task.kill_and_delete().await.map(drop).or_else(gone)?),
                Err(error) => gone(error)?,
            }
            container.delete(DeleteContainer { snapshot: true }).await.or_else(gone)
        }
    }
}
