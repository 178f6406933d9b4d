//! Rounds of power loss: the machine of `cargo xtask vm` works on a disk of its own until QEMU is killed.
//!
//! ```text
//!  vda root.img     the machine's Debian, never written to
//!  vdb payload      our programs
//!  vdc data.img     the daemon's root: what the machine has flushed, or its kernel has written by itself, is in here
//!  vdd notes.img    what the machine before had been answered
//! ```
//!
//! What dies with QEMU is what the machine had only in its memory: the dirty pages of its page cache, which is what a loss of power
//! takes from a disk that keeps what it has acknowledged. Writes are not reordered.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::programs::{build, build_crash};
use crate::setup::{NEEDED, VM, setup};
use crate::step::{Result, at, need_root, run, target};
use crate::vm::{KERNEL_LINE, Kernel, make_disk, root_disk};

/// How long a boot, a start and a check may take, all emulated.
const CHECK: Duration = Duration::from_secs(400);
/// How often a machine is booted whose kernel ends before any program of ours has begun.
const BOOTS: usize = 3;
/// How much the disk of notes holds.
const NOTES_BYTES: u64 = 16 << 20;

/// What a run is asked to do.
pub(crate) struct Power<'a> {
    pub(crate) no_build: bool,
    pub(crate) rounds: u64,
    pub(crate) until: Option<Instant>,
    pub(crate) seed: u64,
    pub(crate) commit: &'a str,
    pub(crate) log: PathBuf,
}

/// What one machine told.
#[derive(Default)]
struct Told {
    violations: Vec<String>,
    operations: u64,
    objects: u64,
    rebuilt: u64,
    /// Our programs run: the kernel has booted.
    begun: bool,
    checked: bool,
    ended: bool,
}

/// Runs the rounds; an error if anything was violated.
pub(crate) fn power(plan: &Power<'_>) -> Result<()> {
    need_root("cargo xtask crash --kind power")?;
    setup(NEEDED)?;
    setup(VM)?;
    if !plan.no_build {
        build(false)?;
        build_crash()?;
    }
    let dir = target("vm");
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    let kernel = Kernel::fetch(&dir)?;
    let root = root_disk(&dir, &kernel)?;
    let initrd = kernel.initrd(&dir)?;
    let own = target("crash/power");
    fs::create_dir_all(&own).map_err(at(&own))?;
    let payload = payload(&own)?;
    let (data, notes) = (own.join("data.img"), own.join("notes.img"));
    let first = fs::read_to_string(&plan.log).map_or(0, |text| text.lines().count() as u64);
    let empty = own.join("empty");
    fs::create_dir_all(&empty).map_err(at(&empty))?;
    make_disk(&empty, &data, "1G")?;
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut clean = true;
    for number in first..first + plan.rounds {
        if plan.until.is_some_and(|until| Instant::now() > until) {
            break;
        }
        write_notes(&notes, &known)?;
        let begun = Instant::now();
        let append = format!("crash.seed={} crash.life={number}", plan.seed.wrapping_add(number));
        let disks = [&root, &payload, &data, &notes];
        let seed = plan.seed.wrapping_add(number);
        let mut told = Told::default();
        for _ in 0..BOOTS {
            told = one_life(boot(&kernel.image, &initrd, &disks, &append)?, &mut known, seed)?;
            if told.begun {
                break;
            }
            // Nothing has been asked of the daemon, and nothing of its disk has been read.
            println!("round {number}: the machine did not get as far as our programs: booting it again");
        }
        println!(
            "round {number}: {} operations, {} objects checked, {} snapshots rebuilt, {} violations, {} s",
            told.operations,
            told.objects,
            told.rebuilt,
            told.violations.len(),
            begun.elapsed().as_secs()
        );
        for violation in &told.violations {
            println!("  {violation}");
        }
        log(plan, number, &told)?;
        if !told.violations.is_empty() {
            clean = false;
            let kept = own.join(format!("data-{number}.img"));
            fs::rename(&data, &kept).map_err(at(&kept))?;
            make_disk(&empty, &data, "1G")?;
            known.clear();
        }
    }
    let totals = run(Command::new(target("debug/gantry-crash")).args(["totals", "--log"]).arg(&plan.log));
    if clean { totals } else { Err("there were violations".to_owned()) }
}

fn payload(dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("payload");
    let _ = fs::remove_dir_all(&tree);
    let bin = tree.join("bin");
    fs::create_dir_all(&bin).map_err(at(&bin))?;
    for name in ["gantryd", "containerd-shim-runc-v2", "gantry-crash"] {
        run(Command::new("strip").arg("-o").arg(bin.join(name)).arg(target("debug").join(name)))?;
    }
    let init = tree.join("init");
    fs::write(&init, include_str!("crash_power_init.sh")).map_err(at(&init))?;
    run(Command::new("chmod").arg("755").arg(&init))?;
    let disk = dir.join("payload.img");
    make_disk(&tree, &disk, "512M")?;
    Ok(disk)
}

/// The length as a line of 16 bytes, then all notes.
fn write_notes(path: &Path, known: &BTreeMap<String, Value>) -> Result<()> {
    let pairs: Vec<Value> = known
        .iter()
        .filter_map(|(subject, note)| Some(json!([serde_json::from_str::<Value>(subject).ok()?, note])))
        .collect();
    let text = Value::from(pairs).to_string();
    let mut file = File::create(path).map_err(at(path))?;
    file.write_all(format!("{:<15}\n{text}", text.len()).as_bytes()).map_err(at(path))?;
    file.set_len(NOTES_BYTES).map_err(at(path))
}

fn boot(kernel: &Path, initrd: &Path, disks: &[&PathBuf; 4], append: &str) -> Result<Child> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    command.arg("-append").arg(format!("{KERNEL_LINE} {append}"));
    for (disk, extra) in disks.iter().zip([",snapshot=on", ",readonly=on", ",cache=unsafe", ",readonly=on"]) {
        command.arg("-drive").arg(format!("file={},if=virtio,format=raw{extra}", disk.display()));
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.map_err(|error| format!("cannot start QEMU: {error}"))
}

/// Listens to a machine until its check is done and it has worked for a while, then takes its power.
fn one_life(mut machine: Child, known: &mut BTreeMap<String, Value>, seed: u64) -> Result<Told> {
    let output = machine.stdout.take().ok_or("QEMU has no output")?;
    let (sender, lines) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(std::io::Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut told = Told::default();
    let checked = listen(&lines, known, &mut told, Instant::now() + CHECK, true);
    if !told.checked {
        let why = if checked { "ended" } else { "was not done in time" };
        told.violations.push(format!("the machine's check {why}"));
    } else {
        // Spread over the time in which the machine's kernel writes dirty pages by itself (30 s), and a little beyond.
        let work = Duration::from_millis(1500 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 20_000);
        listen(&lines, known, &mut told, Instant::now() + work, false);
    }
    machine.kill().map_err(|error| format!("kill QEMU: {error}"))?;
    machine.wait().map_err(|error| format!("wait for QEMU: {error}"))?;
    reader.join().map_err(|_| "the reader of the serial line panicked")?;
    // What was on its way out was said.
    listen(&lines, known, &mut told, Instant::now() + Duration::from_secs(1), false);
    Ok(told)
}

/// Takes lines until `end`, or until the check is done; true if the machine has ended.
fn listen(
    lines: &Receiver<String>,
    known: &mut BTreeMap<String, Value>,
    told: &mut Told,
    end: Instant,
    until_checked: bool,
) -> bool {
    while !(told.ended || until_checked && told.checked) {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
            Ok(line) => take(&line, known, told),
        }
    }
    told.ended
}

fn take(line: &str, known: &mut BTreeMap<String, Value>, told: &mut Told) {
    let (head, rest) = line.split_at_checked(3).unwrap_or((line, ""));
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    match head {
        "@J " => {
            // A line that the end cut off was not said.
            if let Ok(Value::Array(pair)) = serde_json::from_str(rest)
                && let [subject, note] = &pair[..]
            {
                known.insert(subject.to_string(), note.clone());
            }
        }
        "@V " => told.violations.push(rest.to_owned()),
        "@O " => told.operations = number(Some(rest.trim())),
        "@C " => {
            let mut words = rest.split(' ');
            (told.objects, told.rebuilt) = (number(words.next()), number(words.next()));
            told.checked = true;
        }
        _ if line == "@B" => told.begun = true,
        _ if line == "@R" => known.clear(),
        _ if line == "@E" => told.ended = true,
        _ if line.is_empty() => {}
        _ => println!("| {line}"),
    }
}

/// Adds a line in the form of the other kinds' logs.
fn log(plan: &Power<'_>, number: u64, told: &Told) -> Result<()> {
    let line = json!({
        "commit": plan.commit,
        "seed": plan.seed,
        "round": number,
        "end": "PowerLoss",
        "operations": told.operations,
        "refused": 0,
        "objects": told.objects,
        "detail": format!("{} snapshots rebuilt", told.rebuilt),
        "violations": told.violations,
    });
    let file = OpenOptions::new().create(true).append(true).open(&plan.log);
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).map_err(at(&plan.log))
}
