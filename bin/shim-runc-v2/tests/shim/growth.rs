//! What execs and clients leave in the shim: nothing.

use std::fs;
use std::time::Duration;

use gantry_core::tasks::TaskIo;
use gantry_shim::bootstrap::Answer;
use gantry_shim::client::TaskClient;
use gantry_testkit::{eventually, root};

use crate::stage::{Stage, clear, exec};

/// After these, everything was used once, by more than one at a time.
const WARM_UP: usize = 60;
const ROUNDS: usize = 300;

/// Less than a page for each round.
const GROWTH_KIB: u64 = 256;

#[derive(Debug)]
struct Figures {
    descriptors: usize,
    threads: usize,
    anonymous_kib: u64,
}

impl Figures {
    fn of(pid: u32) -> Figures {
        let count = |dir: &str| fs::read_dir(format!("/proc/{pid}/{dir}")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let anonymous_kib = line.trim().trim_end_matches(" kB").parse().unwrap();
        Figures { descriptors: count("fd"), threads: count("task"), anonymous_kib }
    }

    /// Once the threads that a moment needed are gone.
    fn at_rest(pid: u32) -> Figures {
        eventually("threads to end", || Some(Figures::of(pid)).filter(|figures| figures.threads == 1))
    }
}

/// An exec that takes input, and a client that waits for the end of the task and vanishes.
async fn round(stage: &Stage, answer: &Answer, client: &TaskClient, number: usize) {
    let exec_id = format!("exec{number}");
    let names = ["in", "out", "err"].map(|name| format!("{name}{}", number % 4));
    let [stdin, stdout, stderr] = names.map(|name| stage.fifo(&name));
    let io = TaskIo { stdin, stdout, stderr, terminal: false };
    let (out, err) = (stage.read(&io.stdout), stage.read(&io.stderr));
    client.exec(exec("web", &exec_id, "cat; echo err >&2", io.clone())).await.unwrap();
    client.start("web", &exec_id).await.unwrap();
    let text = format!("typed {number}");
    let (input, typed) = (io.stdin, text.clone());
    tokio::task::spawn_blocking(move || fs::write(input, typed).unwrap()).await.unwrap();
    client.close_io("web", &exec_id, true).await.unwrap();
    let vanishing = stage.client(answer).await;
    let waited = tokio::time::timeout(Duration::from_millis(1), vanishing.wait("web", "")).await;
    assert!(waited.is_err());
    drop(vanishing);
    client.wait("web", &exec_id).await.unwrap();
    client.delete("web", &exec_id).await.unwrap();
    assert_eq!((out.await.unwrap(), err.await.unwrap()), (text, "err\n".to_owned()));
}

#[tokio::test]
async fn execs_and_clients_that_vanish_leave_the_shim_as_it_was() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let answer = stage.start_shim("web");
    let client = stage.client(&answer).await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let shim = client.connect_task("web").await.unwrap().shim_pid;
    for number in 0..WARM_UP {
        round(&stage, &answer, &client, number).await;
    }
    let before = Figures::at_rest(shim);
    for number in 0..ROUNDS {
        round(&stage, &answer, &client, number).await;
    }
    eventually("the shim to be as before", || {
        (Figures::of(shim).descriptors == before.descriptors).then_some(())
    });
    let after = Figures::at_rest(shim);
    assert!(after.anonymous_kib <= before.anonymous_kib + GROWTH_KIB, "{before:?}, then {after:?}");
    clear(&client, "web").await;
}
