//! Figures beside those of Debian's containerd, on the same machine in the same minutes.
//!
//! All daemons run under namespaces of their own, and their cgroups begin at one group, so that the CPU
//! time of that group is the time of everything: client, daemon, shim, runtime and container.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use gantry_testkit::isolate::{Isolated, inside};
use gantry_testkit::{Ctr, Daemon, DaemonOptions, Program, busybox_image};

use crate::programs::build;
use crate::setup::{NEEDED, setup};
use crate::step::{Result, cargo, need_root, run, say, target};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// `bench run [--rounds N] [--debug]`, `bench memory [--debug]`, `bench store [--containers N] [--blobs N] [--running N] [--rounds N] [--debug]`;
/// `calls` and `collection` are parts of `store`; `bench execs [--execs N] [--clients N] [--debug]`.
pub(crate) fn bench(args: &[&str]) -> Result<()> {
    let (what, rest) =
        args.split_first().ok_or("bench what? run, memory, store, calls, collection, execs")?;
    let debug = rest.contains(&"--debug");
    if matches!(*what, "store" | "calls" | "collection" | "execs") {
        return load(what, rest, debug);
    }
    let rounds = match rest.iter().position(|arg| *arg == "--rounds") {
        Some(at) => rest.get(at + 1).and_then(|text| text.parse().ok()).ok_or("--rounds needs a number")?,
        None => 20,
    };
    if !matches!(*what, "run" | "memory") {
        return Err(format!("no bench {what}: there are run, memory, store, calls, collection and execs"));
    }
    if !inside() {
        return outside(args, debug);
    }
    match *what {
        "run" => runs(rounds),
        _ => memory(),
    }
}

/// Builds, then runs this command again under namespaces and a cgroup of its own.
fn outside(args: &[&str], debug: bool) -> Result<()> {
    need_root("cargo xtask bench")?;
    setup(NEEDED)?;
    build(!debug)?;
    let profile = if debug { "debug" } else { "release" };
    say(&format!("figures of the {profile} build"));
    let exe = std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?;
    let mut isolated = Isolated::new("bench", &exe);
    isolated.command.arg("bench").args(args).env("GANTRY_BIN_DIR", target(profile));
    run(&mut isolated.command)
}

/// Builds, then starts the program that puts load on daemons under namespaces and a cgroup of its own.
fn load(what: &str, args: &[&str], debug: bool) -> Result<()> {
    need_root("cargo xtask bench")?;
    setup(NEEDED)?;
    build(!debug)?;
    let mut command = cargo(&["build", "--package", "gantry-load"]);
    if !debug {
        command.arg("--release");
    }
    run(&mut command)?;
    let profile = if debug { "debug" } else { "release" };
    say(&format!("figures of the {profile} build"));
    let mut isolated = Isolated::new("bench", &target(profile).join("gantry-load"));
    let args = args.iter().filter(|arg| **arg != "--debug");
    isolated.command.arg(what).args(args).env("GANTRY_BIN_DIR", target(profile));
    run(&mut isolated.command)
}

/// One way to run a container.
struct Way {
    name: &'static str,
    /// Its container that stays: runc keeps those of all daemons in one place.
    id: &'static str,
    daemon: Daemon,
    /// Arguments of `ctr run` that choose the runtime.
    runtime: Vec<String>,
    run: Figures,
    exec: Figures,
}

/// What each round of one command took.
#[derive(Default)]
struct Figures {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
}

impl Figures {
    /// Runs `ctr` with `args`; its figures count from the second time on, since the first one warms caches.
    fn measure(&mut self, ctr: &Ctr, args: &[&str], round: usize) -> Result<()> {
        let before = cpu_time()?;
        let mut command = ctr.command(args);
        let started = Instant::now();
        // The fixtures' own ways to run a program look for its end every now and then, which is too coarse here.
        let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        let wall = started.elapsed();
        if !output.status.success() {
            return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        // What goes on after the client has its answer belongs to the command as well.
        thread::sleep(Duration::from_millis(300));
        let cpu = cpu_time()?.saturating_sub(before);
        if round > 0 {
            self.wall.push(wall);
            self.cpu.push(cpu);
        }
        Ok(())
    }
}

/// A search path without a runtime on it.
fn path_without_runtimes() -> Result<PathBuf> {
    let dir = PathBuf::from("/run/bench-path");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

/// How many ways there are; the peer is the last.
const WAYS: usize = 3;

/// Starts the daemon of one way, with the image.
fn way(number: usize) -> Result<Way> {
    let (name, id, daemon, runtime) = match number {
        0 => {
            let options = DaemonOptions::new(Program::gantryd()).search_path(path_without_runtimes()?);
            ("gantryd, built in", "built-in", options.start(), Vec::new())
        }
        1 => {
            let runc = gantry_testkit::find_in_path("runc").ok_or("runc is missing")?;
            let runtime = vec!["--runc-binary".to_owned(), runc.display().to_string()];
            ("gantryd, runc", "named", DaemonOptions::new(Program::gantryd()).start(), runtime)
        }
        _ => ("containerd, runc", "peer", DaemonOptions::new(Program::containerd()).start(), Vec::new()),
    };
    import(&daemon);
    Ok(Way { name, id, daemon, runtime, run: Figures::default(), exec: Figures::default() })
}

fn import(daemon: &Daemon) {
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, IMAGE);
    daemon.ctr().ok(&["images", "import", &archive.to_string_lossy()]);
}

/// `ctr run --rm IMAGE true` and `ctr tasks exec`, the ways taking turns.
fn runs(rounds: usize) -> Result<()> {
    let mut ways = (0..WAYS).map(way).collect::<Result<Vec<_>>>()?;
    for round in 0..=rounds {
        for way in &mut ways {
            let ctr = way.daemon.ctr();
            let id = format!("r{round}");
            let mut args = vec!["run", "--rm"];
            args.extend(way.runtime.iter().map(String::as_str));
            args.extend([IMAGE, &id, "/bin/true"]);
            way.run.measure(&ctr, &args, round)?;
        }
    }
    for way in &ways {
        let mut args = vec!["run".to_owned(), "-d".to_owned()];
        args.extend(way.runtime.iter().cloned());
        args.extend([IMAGE, way.id, "/bin/sleep", "1000"].map(str::to_owned));
        run_args(&way.daemon.ctr(), &args);
    }
    for round in 0..=rounds {
        for way in &mut ways {
            let id = format!("e{round}");
            let args = ["tasks", "exec", "--exec-id", &id, way.id, "/bin/true"];
            way.exec.measure(&way.daemon.ctr(), &args, round)?;
        }
    }
    print_figures(
        &format!("ctr run --rm busybox /bin/true, median of {rounds} alternating runs"),
        &ways,
        |way| &way.run,
    )?;
    print_figures(
        &format!("ctr tasks exec, /bin/true, median of {rounds} alternating runs"),
        &ways,
        |way| &way.exec,
    )?;
    for way in &ways {
        way.daemon.ctr().ok(&["tasks", "rm", "--force", way.id]);
    }
    Ok(())
}

fn print_figures(title: &str, ways: &[Way], figures: fn(&Way) -> &Figures) -> Result<()> {
    let peer = ways.last().map(figures).ok_or("no peer")?;
    let (peer_wall, peer_cpu) = (median(&peer.wall), median(&peer.cpu));
    println!("{title}");
    println!("{:<20} {:>10} {:>7} {:>10} {:>7}", "", "wall", "ratio", "CPU", "ratio");
    for way in ways {
        let (wall, cpu) = (median(&figures(way).wall), median(&figures(way).cpu));
        println!(
            "{:<20} {:>7.1} ms {:>7.2} {:>7.1} ms {:>7.2}",
            way.name,
            millis(wall),
            wall.as_secs_f64() / peer_wall.as_secs_f64(),
            millis(cpu),
            cpu.as_secs_f64() / peer_cpu.as_secs_f64()
        );
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The CPU time of everything in the group that our cgroup file systems begin at.
fn cpu_time() -> Result<Duration> {
    for hierarchy in ["cpuacct", "cpu,cpuacct"] {
        if let Ok(text) = fs::read_to_string(format!("/sys/fs/cgroup/{hierarchy}/cpuacct.usage")) {
            return text
                .trim()
                .parse()
                .map(Duration::from_nanos)
                .map_err(|error| format!("cpuacct.usage: {error}"));
        }
    }
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.stat")
        .map_err(|error| format!("no CPU accounting: {error}"))?;
    let usage =
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")).ok_or("cpu.stat has no usage_usec")?;
    usage.trim().parse().map(Duration::from_micros).map_err(|error| format!("cpu.stat: {error}"))
}

/// How long daemon and shims are left alone before they are looked at.
const REST: Duration = Duration::from_secs(15);

/// Proportional set size of daemon and shims at rest, each daemon while no other runs: what two of a kind share would be
/// counted half for each.
fn memory() -> Result<()> {
    println!(
        "{:<20} {:>12} {:>12} {:>12} {:>12}",
        "PSS, KiB", "idle", "after work", "first shim", "each of 10"
    );
    for number in 0..WAYS {
        let way = way(number)?;
        let ctr = way.daemon.ctr();
        thread::sleep(REST);
        let idle = pss(way.daemon.pid())?;
        let args = |rest: &[&str]| {
            let mut args = vec!["run".to_owned()];
            args.extend(rest.iter().map(ToString::to_string));
            args.extend(way.runtime.iter().cloned());
            args
        };
        for round in 0..20 {
            let mut args = args(&["--rm"]);
            args.extend([IMAGE.to_owned(), format!("m{round}"), "/bin/true".to_owned()]);
            run_args(&ctr, &args);
        }
        thread::sleep(REST);
        let worked = pss(way.daemon.pid())?;
        let mut first = 0;
        for round in 0..10 {
            let mut args = args(&["-d"]);
            args.extend([IMAGE.to_owned(), format!("d{round}"), "/bin/sleep".to_owned(), "1000".to_owned()]);
            run_args(&ctr, &args);
            if round == 0 {
                first = shims(&ctr)?.iter().sum();
            }
        }
        let all = shims(&ctr)?;
        let each = all.iter().sum::<u64>() / u64::try_from(all.len().max(1)).unwrap_or(1);
        println!("{:<20} {idle:>12} {worked:>12} {first:>12} {each:>12}", way.name);
        for id in ctr.names(&["tasks", "ls"]) {
            ctr.ok(&["tasks", "rm", "--force", &id]);
        }
    }
    Ok(())
}

fn run_args(ctr: &Ctr, args: &[String]) {
    ctr.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The shims' set sizes, after a rest: of the parents of all running tasks.
fn shims(ctr: &Ctr) -> Result<Vec<u64>> {
    let table = ctr.ok(&["tasks", "ls"]);
    let pids = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
    let shims = pids.map(parent).collect::<Result<Vec<_>>>()?;
    // Listing the tasks woke them.
    thread::sleep(REST);
    shims.into_iter().map(pss).collect()
}

fn parent(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| format!("process {pid}: {error}"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).ok_or("a process without a parent")?;
    line.trim().parse().map_err(|error| format!("process {pid}: {error}"))
}

fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .ok_or_else(|| format!("{path} has no Pss"))?;
    line.trim().trim_end_matches(" kB").parse().map_err(|error| format!("{path}: {error}"))
}
