//! [`Container`]: a stored container.

use gantry_core::containers::Container as ContainerRecord;
use gantry_core::tasks::{CreateTask, TaskStatus};
use gantry_core::{ContainerId, Error, ErrorKind, Result, ResultExt, SnapshotKey};
use gantry_oci::runtime::Spec;
use gantry_oci::spec;

use crate::client::Client;
use crate::image::Image;
use crate::process::Process;
use crate::process_io::{IoRequest, ProcessIo};
use crate::task::Task;

/// How a container is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteContainer {
    /// Whether its snapshot goes too.
    pub snapshot: bool,
}

/// A stored container, by its id. Cheap to clone.
#[derive(Clone)]
pub struct Container {
    client: Client,
    id: ContainerId,
}

impl Container {
    pub(crate) fn new(client: Client, id: ContainerId) -> Self {
        Container { client, id }
    }

    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The client it was made with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn step(&self) -> String {
        format!("container {:?}", self.id)
    }

    /// Its record as it is now.
    ///
    /// # Errors
    /// `NotFound` if it was deleted.
    pub async fn info(&self) -> Result<ContainerRecord> {
        let record = self.client.services().containers.get(&self.client.context(), self.id.as_str()).await;
        record.with_context(|| self.step())
    }

    /// The image it was made from.
    ///
    /// # Errors
    /// `NotFound` if it was made without one, or the image was removed.
    pub async fn image(&self) -> Result<Image> {
        let record = self.info().await?;
        if record.image.is_empty() {
            return Err(Error::not_found("an image of it").context(self.step()));
        }
        self.client.image(&record.image).await.with_context(|| self.step())
    }

    /// Its runtime spec.
    ///
    /// # Errors
    /// `FailedPrecondition` if it has none; `InvalidArgument` if it cannot be read.
    pub async fn spec(&self) -> Result<Spec> {
        let record = self.info().await?;
        let stored =
            record.spec.ok_or_else(|| Error::failed_precondition("it has no spec").context(self.step()))?;
        spec::parse(&stored.value).with_context(|| self.step())
    }

    /// Makes its task, with its snapshot as root file system; it begins with [`Process::start`].
    ///
    /// # Errors
    /// `AlreadyExists` if it has a task; those of the runtime. No fifo is left then.
    pub async fn new_task(&self, io: IoRequest) -> Result<Task> {
        let step = || format!("create the task of {}", self.step());
        let cx = self.client.context();
        let record = self.info().await?;
        let rootfs = if record.snapshot_key.is_empty() {
            Vec::new()
        } else {
            let key = SnapshotKey::parse(record.snapshot_key)?;
            let snapshotter = self.client.snapshotter(&record.snapshotter)?;
            snapshotter
                .mounts(&cx, &key)
                .await
                .with_context(|| format!("mounts of snapshot {key:?}"))
                .with_context(step)?
        };
        let io = ProcessIo::prepare(self.id.as_str(), io).with_context(step)?;
        let new = CreateTask {
            container_id: self.id.to_string(),
            rootfs,
            io: io.config().clone(),
            ..CreateTask::default()
        };
        // An error drops the fifos.
        let pid = self.client.services().tasks.create(&cx, new).await.with_context(step)?;
        Ok(Task::new(Process::new(self.client.clone(), self.id.clone(), None, pid, Some(io))))
    }

    /// Its task, without its input and output: those belong to whoever made it.
    ///
    /// # Errors
    /// `NotFound` if it has none.
    pub async fn task(&self) -> Result<Task> {
        let cx = self.client.context();
        let record = self.client.services().tasks.get(&cx, self.id.as_str(), "").await;
        let record = record.with_context(|| format!("task of {}", self.step()))?;
        Ok(Task::new(Process::new(self.client.clone(), self.id.clone(), None, record.pid, None)))
    }

    /// Deletes it. What is gone already is no error where it is a part of the container.
    ///
    /// # Errors
    /// `FailedPrecondition` if it has a task; `NotFound` if it is gone.
    pub async fn delete(&self, how: DeleteContainer) -> Result<()> {
        let step = || format!("delete {}", self.step());
        let cx = self.client.context();
        match self.client.services().tasks.get(&cx, self.id.as_str(), "").await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(task) => {
                let state = if task.status == TaskStatus::Stopped { "a stopped" } else { "a running" };
                let why = format!("it has {state} task, which must be deleted first");
                return Err(Error::failed_precondition(why).context(step()));
            }
            Err(error) => return Err(error.context(step())),
        }
        let record = self.info().await?;
        if how.snapshot && !record.snapshot_key.is_empty() {
            let key = SnapshotKey::parse(record.snapshot_key)?;
            match self.client.snapshotter(&record.snapshotter)?.remove(&cx, &key).await {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error.context(format!("remove snapshot {key:?}")).context(step()));
                }
                _ => {}
            }
        }
        self.client.services().containers.delete(&cx, self.id.as_str()).await.with_context(step)
    }
}
