//! What execs, and clients that attach and vanish, leave in shim and daemon.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::Any;
use gantry_api::containerd::services::tasks::v1 as pb;
use gantry_testkit::busybox_image;
use pb::tasks_client::TasksClient;
use rustix::fs::{CWD, FileType, Mode};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::Result;
use crate::containers::spread;
use crate::side::{Side, call};

const IMAGE: &str = "docker.io/library/busybox:latest";
const NAMESPACE: &str = "default";
const CONTAINER: &str = "web";

/// How many clients there are at once.
const CLIENTS: usize = 4;
/// How much is done between two looks.
const STEP: usize = 1000;
/// After this much, everything was used once.
const WARM_UP: usize = 200;
/// How long threads and buffers of a moment may stay.
const REST: Duration = Duration::from_secs(15);
/// How long a client stays.
const STAY: Duration = Duration::from_millis(10);
/// How much more memory may be in use at the end than after the warm-up, in KiB: less than 64 bytes for each of 10,000.
const GROWTH_KIB: u64 = 600;

/// How many more descriptors: the daemon opens a reader of its database when more calls than ever read at once.
const MORE_DESCRIPTORS: usize = 8;

/// How much of everything.
pub(crate) struct Counts {
    /// Execs that are added, started, read to the end, waited for and deleted.
    pub(crate) execs: usize,
    /// Clients that open the container's output and a wait, and vanish.
    pub(crate) clients: usize,
}

impl Counts {
    pub(crate) fn read(args: &[String]) -> Result<Counts> {
        let mut counts = Counts { execs: 10_000, clients: 10_000 };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err(format!("{pair:?}: a number is missing")) };
            let value: usize = value.parse().map_err(|_| format!("{name} {value:?}: not a number"))?;
            match name.as_str() {
                "--execs" => counts.execs = value,
                "--clients" => counts.clients = value,
                _ => return Err(format!("{name}: no such option")),
            }
        }
        Ok(counts)
    }
}

/// What one process holds.
#[derive(Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
    anonymous_kib: u64,
}

impl Held {
    fn of(pid: u32) -> Result<Held> {
        let count = |dir: &str| {
            let path = format!("/proc/{pid}/{dir}");
            fs::read_dir(&path).map(Iterator::count).map_err(|error| format!("{path}: {error}"))
        };
        let status = number_of(pid, "RssAnon:")?;
        Ok(Held { descriptors: count("fd")?, threads: count("task")?, anonymous_kib: status })
    }
}

fn number_of(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{path} has no {field}"))
}

/// A container whose output nobody takes for long, and the two processes that are watched.
struct Stage {
    side: Side,
    fifos: PathBuf,
    watched: [(&'static str, u32); 2],
}

impl Stage {
    async fn new() -> Result<Stage> {
        let side = Side::ours()?;
        let ctr = side.daemon.ctr();
        let archive = side.daemon.dir().join("busybox.tar");
        busybox_image().write_oci_archive(&archive, IMAGE);
        ctr.ok(&["images", "import", &archive.to_string_lossy()]);
        let fifos = side.daemon.dir().join("fifos");
        fs::create_dir_all(&fifos).map_err(|error| format!("{}: {error}", fifos.display()))?;
        let script = "while true; do echo tick; sleep 0.1; done";
        ctr.ok(&["run", "-d", IMAGE, CONTAINER, "/bin/sh", "-c", script]);
        let get = pb::GetRequest { container_id: CONTAINER.to_owned(), ..Default::default() };
        let got = side.tasks(0).get(call(NAMESPACE, "", get)?).await.map_err(|status| status.to_string())?;
        let init = got.into_inner().process.ok_or("a task without process")?.pid;
        let shim = u32::try_from(number_of(init, "PPid:")?).map_err(|error| error.to_string())?;
        let watched = [("gantryd", side.daemon.pid()), ("shim", shim)];
        Ok(Stage { side, fifos, watched })
    }

    fn held(&self) -> Result<[Held; 2]> {
        Ok([Held::of(self.watched[0].1)?, Held::of(self.watched[1].1)?])
    }

    async fn at_rest(&self) -> Result<[Held; 2]> {
        tokio::time::sleep(REST).await;
        self.held()
    }

    fn print(&self, what: &str, held: [Held; 2]) {
        for ((name, _), held) in self.watched.iter().zip(held) {
            let Held { descriptors, threads, anonymous_kib } = held;
            println!("{what:<24} {name:<8} {descriptors:>6} {threads:>4} {anonymous_kib:>8}");
        }
    }

    /// Execs `first..first + count`.
    async fn execs(&self, first: usize, count: usize) -> Result<()> {
        let connections: Vec<_> = (0..CLIENTS).map(|client| self.side.tasks(client)).collect();
        let fifos = Arc::new(self.fifos.clone());
        spread(CLIENTS, count, move |client, number| {
            exec(connections[client].clone(), Arc::clone(&fifos), first + number)
        })
        .await
        .map(|_| ())
    }

    /// Clients with connections of their own.
    async fn vanish(&self, count: usize) -> Result<()> {
        let get = pb::GetRequest { container_id: CONTAINER.to_owned(), ..Default::default() };
        let got =
            self.side.tasks(0).get(call(NAMESPACE, "", get)?).await.map_err(|status| status.to_string())?;
        let stdout = PathBuf::from(got.into_inner().process.ok_or("a task without process")?.stdout);
        let address = self.side.daemon.address();
        spread(CLIENTS, count, move |_, _| attach_and_vanish(address.clone(), stdout.clone()))
            .await
            .map(|_| ())
    }
}

async fn exec(
    mut tasks: TasksClient<tonic::transport::Channel>,
    fifos: Arc<PathBuf>,
    number: usize,
) -> Result<()> {
    let said = |status: tonic::Status| format!("exec {number}: {status}");
    let fifo = fifos.join(format!("exec{number}"));
    make_fifo(&fifo)?;
    let open = || format!("{}: ", fifo.display());
    let mut reader =
        pipe::OpenOptions::new().open_receiver(&fifo).map_err(|error| format!("{}{error}", open()))?;
    let exec_id = format!("exec{number}");
    let spec = r#"{"args":["/bin/echo","all of it"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}"#;
    let request = pb::ExecProcessRequest {
        container_id: CONTAINER.to_owned(),
        exec_id: exec_id.clone(),
        stdout: fifo.display().to_string(),
        spec: Some(process(spec)),
        ..Default::default()
    };
    tasks.exec(call(NAMESPACE, "", request)?).await.map_err(said)?;
    let start = pb::StartRequest { container_id: CONTAINER.to_owned(), exec_id: exec_id.clone() };
    tasks.start(call(NAMESPACE, "", start)?).await.map_err(said)?;
    let wait = pb::WaitRequest { container_id: CONTAINER.to_owned(), exec_id: exec_id.clone() };
    let ended = tasks.wait(call(NAMESPACE, "", wait)?).await.map_err(said)?.into_inner();
    let delete = pb::DeleteProcessRequest { container_id: CONTAINER.to_owned(), exec_id };
    tasks.delete_process(call(NAMESPACE, "", delete)?).await.map_err(said)?;
    let mut output = String::new();
    reader.read_to_string(&mut output).await.map_err(|error| format!("{}{error}", open()))?;
    fs::remove_file(&fifo).map_err(|error| format!("{}{error}", open()))?;
    match (ended.exit_status, output.as_str()) {
        (0, "all of it\n") => Ok(()),
        (status, output) => Err(format!("exec {number} ended with {status} and said {output:?}")),
    }
}

fn process(spec: &str) -> Any {
    Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
        value: spec.as_bytes().to_vec(),
    }
}

/// Opens the container's output and waits for its end, as attaching does, and is gone in the middle of both.
async fn attach_and_vanish(address: PathBuf, stdout: PathBuf) -> Result<()> {
    let channel = gantry_rpc::connect(&address).map_err(|error| error.to_string())?;
    let reader = pipe::OpenOptions::new()
        .open_receiver(&stdout)
        .map_err(|error| format!("{}: {error}", stdout.display()))?;
    let mut tasks = TasksClient::new(channel);
    let wait = pb::WaitRequest { container_id: CONTAINER.to_owned(), ..Default::default() };
    let mut some = [0; 512];
    tokio::select! {
        ended = tasks.wait(call(NAMESPACE, "", wait)?) => Err(format!("the container ended: {ended:?}")),
        () = tokio::time::sleep(STAY) => {
            // There may be nothing to read just now.
            let _ = reader.try_read(&mut some);
            Ok(())
        }
    }
}

fn make_fifo(path: &Path) -> Result<()> {
    let made = rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    made.map_err(|error| format!("make {}: {error}", path.display()))
}

/// Runs all of it, and fails if more is held at the end than after the warm-up.
pub(crate) async fn execs(counts: &Counts) -> Result<()> {
    let stage = Stage::new().await?;
    println!("{:<24} {:<8} {:>6} {:>4} {:>8}", "after", "of", "fds", "thr", "anon KiB");
    stage.execs(0, WARM_UP).await?;
    stage.vanish(WARM_UP).await?;
    let before = stage.at_rest().await?;
    stage.print("the warm-up", before);
    let mut done = 0;
    for step in steps(counts.execs) {
        stage.execs(WARM_UP + done, step).await?;
        done += step;
        stage.print(&format!("{done} execs"), stage.held()?);
    }
    let mut done = 0;
    for step in steps(counts.clients) {
        stage.vanish(step).await?;
        done += step;
        stage.print(&format!("{done} clients"), stage.held()?);
    }
    let after = stage.at_rest().await?;
    stage.print("a rest", after);
    for ((name, _), (before, after)) in stage.watched.iter().zip(before.into_iter().zip(after)) {
        if after.descriptors > before.descriptors + MORE_DESCRIPTORS
            || after.threads > before.threads
            || after.anonymous_kib > before.anonymous_kib + GROWTH_KIB
        {
            return Err(format!("{name} holds more than after the warm-up"));
        }
    }
    stage.side.daemon.ctr().ok(&["tasks", "rm", "--force", CONTAINER]);
    Ok(())
}

fn steps(all: usize) -> VecDeque<usize> {
    (0..all).step_by(STEP).map(|done| STEP.min(all - done)).collect()
}
