//! Containers.

use gantry_api::containerd::services::containers::v1::{Container as Proto, container::Runtime};
use gantry_core::containers::{Container, ContainerRuntime};
use gantry_core::identifiers::validate_identifier;
use gantry_core::{ContainerId, Result, ResultExt as _};

use crate::call::present;
use crate::{any, timestamp};

/// Worded as containerd's store does. Source: observed answers.
fn container_id(text: String) -> Result<ContainerId> {
    validate_identifier(&text).context("container.ID")?;
    ContainerId::parse(text)
}

pub(crate) fn container_from_proto(container: Option<Proto>) -> Result<Container> {
    let container = present(container, "container")?;
    // Without runtime its name is empty, which the store judges: updates with a mask need none.
    let runtime = container.runtime.unwrap_or_default();
    Ok(Container {
        id: container_id(container.id)?,
        labels: container.labels,
        image: container.image,
        runtime: ContainerRuntime { name: runtime.name, options: runtime.options.map(any::from_proto) },
        spec: container.spec.map(any::from_proto),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        created_at: timestamp::or_epoch(container.created_at),
        updated_at: timestamp::or_epoch(container.updated_at),
        extensions: container.extensions.into_iter().map(|(k, v)| (k, any::from_proto(v))).collect(),
        sandbox: container.sandbox,
    })
}

pub(crate) fn container_to_proto(container: Container) -> Proto {
    Proto {
        id: container.id.into_string(),
        labels: container.labels,
        image: container.image,
        runtime: Some(Runtime {
            name: container.runtime.name,
            options: container.runtime.options.map(any::to_proto),
        }),
        spec: container.spec.map(any::to_proto),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        created_at: Some(timestamp::to_proto(container.created_at)),
        updated_at: Some(timestamp::to_proto(container.updated_at)),
        extensions: container.extensions.into_iter().map(|(k, v)| (k, any::to_proto(v))).collect(),
        sandbox: container.sandbox,
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::Any;

    use super::*;

    #[test]
    fn a_container_survives_the_wire() {
        let mut container = Container::new(ContainerId::parse("web").unwrap(), "io.containerd.runc.v2");
        container.labels = [("a".into(), "b".into())].into();
        container.image = "docker.io/library/busybox:latest".into();
        container.runtime.options = Some(Any::new("o", "1"));
        container.spec = Some(Any::new("s", "{}"));
        container.snapshotter = "overlayfs".into();
        container.snapshot_key = "web".into();
        container.created_at += std::time::Duration::new(5, 7);
        container.extensions = [("x".into(), Any::new("e", "2"))].into();
        container.sandbox = "pod".into();
        let back = container_from_proto(Some(container_to_proto(container.clone()))).unwrap();
        assert_eq!(back, container);
    }
}
