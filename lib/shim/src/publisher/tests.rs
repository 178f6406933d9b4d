use std::path::Path;

use async_trait::async_trait;
use gantry_core::Context;
use gantry_core::events::EventPublisher;
use gantry_ttrpc::{Server, ServerConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::forward::ForwardService;

/// A daemon that remembers what it was told, and may refuse.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<Envelope>>,
    refuse: Mutex<Option<ErrorKind>>,
}

#[async_trait]
impl EventPublisher for Listener {
    async fn publish(&self, _cx: &Context, event: Event) {
        panic!("shims forward: {event:?}");
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        if let Some(kind) = *self.refuse.lock().unwrap() {
            return Err(Error::bare(kind));
        }
        assert_eq!(envelope.namespace, "ns");
        self.heard.lock().unwrap().push(envelope);
        Ok(())
    }
}

struct Running {
    listener: Arc<Listener>,
    stop: CancellationToken,
    job: JoinSet<Result<()>>,
}

fn listen(path: &Path) -> Running {
    let socket = gantry_ttrpc::socket::bind(path).unwrap();
    let listener = Arc::new(Listener::default());
    let stop = CancellationToken::new();
    let server =
        Server::new(ServerConfig::default()).with(SERVICE, Arc::new(ForwardService::new(listener.clone())));
    let mut job = JoinSet::new();
    let ended = stop.clone();
    job.spawn(async move { server.run(socket, ended.cancelled_owned()).await });
    Running { listener, stop, job }
}

impl Running {
    async fn end(mut self, path: &Path) {
        self.stop.cancel();
        self.job.join_next().await.unwrap().unwrap().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    fn heard(&self) -> Vec<Event> {
        let heard = self.listener.heard.lock().unwrap();
        heard.iter().map(|envelope| envelope.payload.event().unwrap().clone()).collect()
    }
}

fn start(n: u32) -> Event {
    Event::TaskStart { container_id: "web".into(), pid: n }
}

fn exit(n: u32) -> Event {
    Event::TaskExit { container_id: "web".into(), id: "web".into(), pid: n, exit_status: 0, exited_at: None }
}

#[tokio::test]
async fn events_arrive_in_order_through_a_restart_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.ttrpc");
    let publisher = Publisher::new(Daemon::Socket(path.clone()), "ns");
    let mut job = JoinSet::new();
    let running = publisher.clone();
    job.spawn(async move { running.run().await });

    publisher.publish(start(1));
    let first = listen(&path);
    publisher.flush(Duration::from_secs(30)).await;
    assert_eq!(first.heard(), [start(1)]);
    first.end(&path).await;

    publisher.publish(exit(2));
    publisher.publish(start(3));
    tokio::task::yield_now().await;
    let second = listen(&path);
    publisher.flush(Duration::from_secs(30)).await;
    assert_eq!(second.heard(), [exit(2), start(3)]);
    assert_eq!(second.listener.heard.lock().unwrap()[0].topic, "/tasks/exit");
    assert_eq!(publisher.waiting(), 0);
    second.end(&path).await;
}

#[tokio::test]
async fn exits_outlast_any_number_of_other_events() {
    let publisher = Publisher::new(Daemon::Socket("/nowhere".into()), "ns");
    publisher.publish(exit(0));
    for n in 0..5000 {
        publisher.publish(start(n));
    }
    publisher.publish(exit(1));
    assert_eq!(publisher.waiting(), MAX_DROPPABLE + 2);
    assert_eq!(publisher.first().unwrap().event, exit(0));
    publisher.done(0);
    assert_eq!(publisher.first().unwrap().event, start(5000 - u32::try_from(MAX_DROPPABLE).unwrap()));
}

#[tokio::test]
async fn an_event_that_can_never_be_right_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.ttrpc");
    let daemon = listen(&path);
    *daemon.listener.refuse.lock().unwrap() = Some(ErrorKind::InvalidArgument);
    let publisher = Publisher::new(Daemon::Socket(path.clone()), "ns");
    let mut job = JoinSet::new();
    let running = publisher.clone();
    job.spawn(async move { running.run().await });
    publisher.publish(exit(1));
    publisher.flush(Duration::from_secs(30)).await;
    *daemon.listener.refuse.lock().unwrap() = None;
    publisher.publish(exit(2));
    publisher.flush(Duration::from_secs(30)).await;
    assert_eq!(daemon.heard(), [exit(2)]);
}

#[tokio::test]
async fn a_program_publishes_where_there_is_no_socket() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("publish");
    let script = format!("#!/bin/sh\necho \"$*\" >> {0}/args\ncat > {0}/payload\n", dir.path().display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::find("", "/no/such.sock", program);
    let publisher = Publisher::new(daemon, "ns");
    let mut job = JoinSet::new();
    let running = publisher.clone();
    job.spawn(async move { running.run().await });
    publisher.publish(exit(1));
    publisher.flush(Duration::from_secs(30)).await;
    let args = std::fs::read_to_string(dir.path().join("args")).unwrap();
    assert_eq!(args, "--address /no/such.sock publish --topic /tasks/exit --namespace ns\n");
    let payload = prost_types::Any::decode(&std::fs::read(dir.path().join("payload")).unwrap()[..]).unwrap();
    assert_eq!(convert::event_from_any(&convert::any_from_proto(payload)), Some(exit(1)));
}

#[test]
fn the_daemon_is_found_by_its_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let grpc = dir.path().join("c.sock").display().to_string();
    assert_eq!(Daemon::find("/t.sock", &grpc, "p".into()), Daemon::Socket("/t.sock".into()));
    assert_eq!(Daemon::find("", &grpc, "p".into()), Daemon::Program("p".into(), grpc.clone()));
    std::fs::write(format!("{grpc}.ttrpc"), "").unwrap();
    assert_eq!(Daemon::find("", &grpc, "p".into()), Daemon::Socket(format!("{grpc}.ttrpc").into()));
    assert_eq!(Daemon::find("", "", PathBuf::new()), Daemon::Nobody);
}
