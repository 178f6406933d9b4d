//! Containers that run without an image: their root is a directory with busybox.

use gantry_api::Any;
use gantry_api::containerd::services::containers::v1::{Container, CreateContainerRequest};
use gantry_api::containerd::services::tasks::v1::{CreateTaskRequest, GetRequest, StartRequest};
use gantry_api::containerd::v1::types::{Process, Status as TaskStatus};
use gantry_core::wire_names::TYPE_SPEC;
use gantry_testkit::find_in_path;
use rustix::process::{Pid, Signal, kill_process};
use tonic::Status;

use crate::support::{Wire, container, in_test};

/// A container whose process is `args`, the first of which is an applet of busybox.
pub(crate) fn runnable(wire: &Wire, id: &str, args: &[&str]) -> Container {
    let rootfs = wire.daemon.dir().join("rootfs");
    if !rootfs.exists() {
        for name in ["bin", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        std::fs::copy(find_in_path("busybox").unwrap(), rootfs.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
    }
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": rootfs},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("/test/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        },
    });
    let spec = Some(Any { type_url: TYPE_SPEC.into(), value: spec.to_string().into_bytes() });
    Container { spec, ..container(id, &[]) }
}

/// Stores `container`, creates and starts its task, and gives its pid.
pub(crate) async fn run(wire: &Wire, container: Container) -> Result<u32, Status> {
    let id = container.id.clone();
    let request = CreateContainerRequest { container: Some(container) };
    wire.containers().create(in_test(request)).await?;
    let create = CreateTaskRequest { container_id: id.clone(), ..Default::default() };
    let pid = wire.tasks().create(in_test(create)).await?.into_inner().pid;
    let start = StartRequest { container_id: id, ..Default::default() };
    wire.tasks().start(in_test(start)).await?;
    Ok(pid)
}

pub(crate) async fn task(wire: &Wire, id: &str) -> Result<Process, Status> {
    let request = GetRequest { container_id: id.into(), ..Default::default() };
    Ok(wire.tasks().get(in_test(request)).await?.into_inner().process.unwrap())
}

pub(crate) async fn task_status(wire: &Wire, id: &str) -> Result<TaskStatus, Status> {
    task(wire, id).await.map(|process| process.status())
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}
