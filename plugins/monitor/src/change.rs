//! Bringing a container's task into the state that is asked for.

use std::time::Duration;

use gantry_core::containers::Container;
use gantry_core::field_mask::FieldMask;
use gantry_core::tasks::{CreateTask, TaskIo, TaskStatus};
use gantry_core::wire_names::{LABEL_RESTART_COUNT, LABEL_RESTART_LOG_URI};
use gantry_core::{Context, Error, ErrorKind, Result, ResultExt, SnapshotKey};
use serde::Deserialize;

use crate::policy;
use crate::restart::Watched;

/// Source: signal(7).
const SIGKILL: u32 = 9;

/// How long a killed task may take to end; the next look tries again.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Replaces the task of `container` by a new one, which is counted in the container's labels. A task that somebody has started
/// meanwhile stays; so does one that was created only, unless `created` says that this is what is replaced.
///
/// # Errors
/// Those of the services, naming the step.
pub(crate) async fn start(
    watched: &Watched,
    cx: &Context,
    container: Container,
    created: bool,
) -> Result<()> {
    let id = container.id.clone();
    match watched.tasks.get(cx, id.as_str(), "").await {
        Ok(task) if task.status == TaskStatus::Stopped || created && task.status == TaskStatus::Created => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.context("look at the task before")),
    }
    let io = io_of(&container)?;
    let mut counted = container.clone();
    let count = policy::count(&container.labels).saturating_add(1).to_string();
    counted.labels = [(LABEL_RESTART_COUNT.to_owned(), count)].into();
    let mask = FieldMask::new([format!("labels.{LABEL_RESTART_COUNT}")]);
    watched.containers.update(cx, counted, &mask).await.context("count the restart")?;
    stop(watched, cx, id.as_str()).await.context("remove the task before")?;
    let rootfs = match container.snapshot_key.as_str() {
        "" => Vec::new(),
        key => {
            let name = &container.snapshotter;
            let missing = || Error::not_found(format!("snapshotter {name:?}"));
            let snapshotter = watched.snapshotters.get(name).ok_or_else(missing)?;
            snapshotter.mounts(cx, &SnapshotKey::parse(key)?).await.context("mounts of the snapshot")?
        }
    };
    let new = CreateTask { container_id: id.to_string(), rootfs, io, ..CreateTask::default() };
    watched.tasks.create(cx, new).await?;
    let started = watched.tasks.start(cx, id.as_str(), "").await;
    if started.is_err()
        && let Err(error) = stop(watched, cx, id.as_str()).await
    {
        tracing::warn!(%error, container_id = %id, "a task that did not start stays");
    }
    started.map(drop).context("start the task")
}

/// Kills the task of the container `id` and deletes it; none there is success.
///
/// # Errors
/// `DeadlineExceeded` if it does not end; otherwise those of the task service.
pub(crate) async fn stop(watched: &Watched, cx: &Context, id: &str) -> Result<()> {
    let tasks = &watched.tasks;
    match tasks.kill(cx, id, "", SIGKILL, true).await {
        // It has ended, or is none.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, container_id = id, "kill a task"),
        Ok(()) => {}
    }
    let ended = tokio::time::timeout(END_TIMEOUT, tasks.wait(cx, id, "")).await;
    match ended {
        Ok(Err(error)) if error.kind() != ErrorKind::NotFound => {
            return Err(error.context("wait for its end"));
        }
        Err(_) => return Err(Error::deadline_exceeded(format!("the end of task {id:?}"))),
        Ok(_) => {}
    }
    match tasks.delete(cx, id, "").await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.context("delete it")),
        _ => Ok(()),
    }
}

/// Where the new task's output goes: what the label says, or nowhere.
fn io_of(container: &Container) -> Result<TaskIo> {
    #[derive(Default, Deserialize)]
    struct Spec {
        process: Option<Process>,
    }
    #[derive(Default, Deserialize)]
    struct Process {
        #[serde(default)]
        terminal: bool,
    }
    let spec =
        container.spec.as_ref().ok_or_else(|| Error::failed_precondition("the container has no spec"))?;
    let spec: Spec = serde_json::from_slice(&spec.value)
        .map_err(|error| Error::invalid_argument(format!("the container's spec: {error}")))?;
    let terminal = spec.process.is_some_and(|process| process.terminal);
    let Some(uri) = container.labels.get(LABEL_RESTART_LOG_URI).filter(|uri| !uri.is_empty()) else {
        // Source: the original's task without input and output has no terminal either.
        return Ok(TaskIo::default());
    };
    if !uri.contains("://") {
        return Err(Error::invalid_argument(format!("label {LABEL_RESTART_LOG_URI} {uri:?} is no URI")));
    }
    let stderr = if terminal { String::new() } else { uri.clone() };
    Ok(TaskIo { stdin: String::new(), stdout: uri.clone(), stderr, terminal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::{Any, ContainerId};

    fn container(spec: &str, uri: &str) -> Container {
        let mut container = Container::new(ContainerId::parse("c").unwrap(), "r");
        container.spec = Some(Any::new("spec", spec.as_bytes().to_vec()));
        container.labels.insert(LABEL_RESTART_LOG_URI.into(), uri.into());
        container
    }

    #[test]
    fn output_goes_where_the_label_says() {
        let uri = "file:///var/log/c";
        let io = io_of(&container("{}", uri)).unwrap();
        assert_eq!((io.stdout.as_str(), io.stderr.as_str(), io.terminal), (uri, uri, false));
        let io = io_of(&container(r#"{"process":{"terminal":true}}"#, uri)).unwrap();
        assert_eq!((io.stdout.as_str(), io.stderr.as_str(), io.terminal), (uri, "", true));
        assert_eq!(io_of(&container("{}", "")).unwrap(), TaskIo::default());
        assert!(io_of(&container("{}", "/var/log/c")).is_err());
        assert!(io_of(&container("{", uri)).is_err());
    }
}
