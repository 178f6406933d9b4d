use std::time::{Duration, UNIX_EPOCH};

use gantry_core::events::{Envelope, Event, EventPayload};
use gantry_core::tasks::{ExecTask, ExitRecord, ProcessInfo, ProcessRecord, TaskIo, TaskStatus};
use gantry_core::{ErrorKind, ExecId};

use super::*;

fn io() -> TaskIo {
    TaskIo { stdin: "/i".into(), stdout: "/o".into(), stderr: "/e".into(), terminal: true }
}

#[test]
fn a_create_and_an_exec_come_back_the_same() {
    let new = ShimCreate {
        id: "web".into(),
        bundle: "/b".into(),
        rootfs: vec![Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: "t".into(),
            options: vec!["ro".into()],
        }],
        io: io(),
        checkpoint: "/c".into(),
        parent_checkpoint: "/p".into(),
        options: Some(Any::new("x", &b"y"[..])),
    };
    assert_eq!(create_from_proto(create_to_proto(new.clone())), new);
    let exec = ExecTask {
        container_id: "web".into(),
        exec_id: ExecId::parse("sh").unwrap(),
        io: io(),
        spec: Any::new("s", &b"{}"[..]),
    };
    let back = exec_from_proto(exec_to_proto(exec.clone())).unwrap();
    assert_eq!(
        (back.container_id, back.exec_id, back.io, back.spec),
        (exec.container_id, exec.exec_id, exec.io, exec.spec)
    );
    let missing =
        gantry_api::containerd::task::v3::ExecProcessRequest { exec_id: "sh".into(), ..Default::default() };
    assert_eq!(exec_from_proto(missing).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn every_status_comes_back_the_same() {
    use TaskStatus::{Created, Paused, Pausing, Running, Stopped, Unknown};
    for status in [Unknown, Created, Running, Stopped, Paused, Pausing] {
        assert_eq!(status_from_proto(status_to_proto(status).into()), status);
    }
    assert_eq!(status_from_proto(99), Unknown);
}

#[test]
fn a_state_comes_back_the_same_and_running_has_gos_zero_time() {
    let mut record = ProcessRecord {
        container_id: "web".into(),
        id: "sh".into(),
        pid: 7,
        status: TaskStatus::Stopped,
        io: io(),
        exit_status: 3,
        exited_at: Some(UNIX_EPOCH + Duration::new(5, 6)),
    };
    let state = state_to_proto(record.clone(), "/b".into());
    assert_eq!((state.exec_id.as_str(), state.bundle.as_str()), ("sh", "/b"));
    assert_eq!(state_from_proto("web", state), record);
    record.exited_at = None;
    let state = state_to_proto(record.clone(), String::new());
    assert_eq!(state.exited_at.as_ref().unwrap().seconds, -62_135_596_800);
    assert_eq!(state_from_proto("web", state), record);
}

#[test]
fn exits_come_back_the_same() {
    let exit =
        ExitRecord { id: "sh".into(), pid: 9, status: 137, exited_at: UNIX_EPOCH + Duration::from_secs(1) };
    assert_eq!(delete_from_proto("sh", delete_to_proto(9, 137, Some(exit.exited_at))), exit);
    let waited = wait_from_proto(wait_to_proto(&exit));
    assert_eq!((waited.status, waited.exited_at), (exit.status, exit.exited_at));
    let info = ProcessInfo { pid: 4, info: Some(Any::new("t", &b"v"[..])) };
    assert_eq!(process_info_from_proto(process_info_to_proto(info.clone())), info);
}

#[test]
fn every_task_event_comes_back_the_same() {
    let id = || "web".to_owned();
    let at = Some(UNIX_EPOCH + Duration::from_secs(9));
    let events = [
        Event::TaskCreate {
            container_id: id(),
            bundle: "/b".into(),
            rootfs: vec![Mount::default()],
            io: Some(io()),
            checkpoint: "c".into(),
            pid: 1,
        },
        Event::TaskStart { container_id: id(), pid: 2 },
        Event::TaskExit { container_id: id(), id: "sh".into(), pid: 3, exit_status: 4, exited_at: at },
        Event::TaskDelete { container_id: id(), pid: 3, exit_status: 4, exited_at: at, id: "sh".into() },
        Event::TaskOom { container_id: id() },
        Event::TaskExecAdded { container_id: id(), exec_id: "sh".into() },
        Event::TaskExecStarted { container_id: id(), exec_id: "sh".into(), pid: 5 },
        Event::TaskPaused { container_id: id() },
        Event::TaskResumed { container_id: id() },
        Event::TaskCheckpointed { container_id: id(), checkpoint: "/c".into() },
    ];
    for event in events {
        let envelope = Envelope {
            timestamp: UNIX_EPOCH + Duration::from_secs(3),
            namespace: "ns".into(),
            topic: event.topic().to_owned(),
            payload: EventPayload::Typed(event.clone()),
        };
        let back = envelope_from_proto(envelope_to_proto(envelope.clone()).unwrap()).unwrap();
        assert_eq!(back.payload.event(), Some(&event));
        assert_eq!(
            (back.timestamp, back.namespace, back.topic),
            (envelope.timestamp, envelope.namespace, envelope.topic)
        );
    }
    assert!(event_to_any(Event::ContainerDelete { id: id() }).is_none());
    assert!(event_from_any(&Any::new("containerd.events.TaskExit", &b"\xff\xff"[..])).is_none());
    assert!(envelope_from_proto(Default::default()).is_err());
}
