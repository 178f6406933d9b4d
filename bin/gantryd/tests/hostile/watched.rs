//! A daemon, and whether it is still what it was.

use std::fs;
use std::time::{Duration, Instant};

use gantry_testkit::{Daemon, DaemonOptions, Program, eventually, scaled};

use crate::wire::{Client, OK};

/// How long a `Version` may take while or after something bad is done.
const QUICK: Duration = Duration::from_secs(5);

/// How much larger the daemon may be afterwards, in KiB: what an allocator keeps of the largest messages. A debug build's.
const GROWTH_KIB: u64 = 96 << 10;

/// How many descriptors more it may have: worker threads and database readers that were not needed before.
const MORE_DESCRIPTORS: usize = 24;

/// Only collections that a test asks for.
const CONFIG: &str = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"";

/// What a process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) descriptors: usize,
    pub(crate) pss_kib: u64,
}

/// The daemon under attack.
pub(crate) struct Watched {
    pub(crate) daemon: Daemon,
    pid: u32,
    before: Size,
}

impl Watched {
    /// Starts our daemon, warms it, and remembers what it is like.
    pub(crate) async fn start() -> Watched {
        let daemon = DaemonOptions::new(Program::gantryd()).config(CONFIG).start();
        let pid = daemon.pid();
        let mut watched = Watched { daemon, pid, before: Size { descriptors: 0, pss_kib: 0 } };
        for _ in 0..20 {
            watched.assert_answers("at the beginning").await;
        }
        watched.before = watched.size();
        watched
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.daemon.address()).await
    }

    pub(crate) fn size(&self) -> Size {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the daemon lives").count();
        let rollup =
            fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).expect("the daemon lives");
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("its size is there");
        let pss_kib = pss.trim().trim_end_matches(" kB").parse().expect("a number");
        Size { descriptors, pss_kib }
    }

    /// How much CPU time it has taken.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("the daemon lives");
        let rest = stat.rsplit_once(')').expect("a name in brackets").1;
        // Source: proc_pid_stat(5): utime and stime are the 14th and 15th, counted in clock ticks of 10 ms.
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Fails unless another client is answered, and soon.
    pub(crate) async fn assert_answers(&self, when: &str) {
        let asked = Instant::now();
        let asking = async {
            self.client().await.call("/containerd.services.version.v1.Version/Version", Vec::new()).await
        };
        let answer = tokio::time::timeout(scaled(QUICK), asking).await;
        let answer = answer.unwrap_or_else(|_| panic!("{when}: no Version in {:?}", asked.elapsed()));
        assert_eq!(answer.code, Some(OK), "{when}: {answer:?}");
    }

    /// Fails unless it is the daemon that it was: alive, answering, of its size, without a panic.
    pub(crate) async fn assert_unharmed(&mut self, after: &str) {
        assert!(self.is_alive(), "{after}: the daemon ended");
        self.assert_answers(after).await;
        // A panic is caught and answered as INTERNAL; it is a fault of ours all the same.
        let log = self.daemon.log();
        let panic = log.lines().find(|line| line.contains("panicked"));
        assert!(panic.is_none(), "{after}: {panic:?}");
        let most = self.before.descriptors + MORE_DESCRIPTORS;
        let what = format!("{after}: {:?} and then {} descriptors at most", self.before, most);
        let size = eventually(&what, || Some(self.size()).filter(|size| size.descriptors <= most));
        let what = format!("{after}: {:?} and then at most {GROWTH_KIB} KiB more, not {size:?}", self.before);
        let grown = |size: &Size| size.pss_kib.saturating_sub(self.before.pss_kib);
        let size = eventually(&what, || Some(self.size()).filter(|size| grown(size) <= GROWTH_KIB));
        println!("{after}: {:?} before, {size:?} now", self.before);
    }

    /// The same, and no write holds its ref.
    pub(crate) async fn assert_refs_are_free(&mut self, refs: &[String]) {
        for name in refs {
            let deadline = Instant::now() + scaled(Duration::from_secs(20));
            loop {
                let answer = self.client().await.write_once(name).await;
                if answer.code == Some(OK) {
                    break;
                }
                assert!(Instant::now() < deadline, "ref {name:?} stays locked: {answer:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}
