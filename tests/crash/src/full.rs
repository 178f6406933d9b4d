//! Rounds on a file system that fills up: every call does what it was asked for or says that there is no room, deletions work, and
//! once there is room again the daemon goes on, or starts again, as if nothing had been.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gantry_core::{Error, Result, ResultExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::check::{After, check};
use crate::load::{CLIENTS, Course, Load, Tolerance, Worker};
use crate::log::{End, Log, Round};
use crate::rounds::{Clients, Ground, Plan};

/// How large the file system is.
const SIZE_MIB: u64 = 48;
/// After so many rounds a root is given up for a new one.
const ROUNDS_OF_A_ROOT: u64 = 10;
/// How much room the clients have before the disk is full.
const ROOM_BYTES: u64 = 2 << 20;
/// How many refusals show that it is full.
const REFUSALS: u64 = 24;
/// How long that may take.
const FILL: Duration = Duration::from_secs(6);

/// A small file system for a root, unmounted when dropped.
struct Disk {
    mount: PathBuf,
}

impl Disk {
    /// A tmpfs, or an ext4 in a file.
    fn make(dir: &Path, ext4: bool) -> Result<Disk> {
        let mount = dir.join("disk");
        fs::create_dir_all(&mount).with_context(|| format!("make {}", mount.display()))?;
        if ext4 {
            let image = dir.join("disk.img");
            let file = File::create(&image).and_then(|file| file.set_len(SIZE_MIB << 20));
            file.with_context(|| format!("make {}", image.display()))?;
            run(Command::new("mke2fs")
                .args(["-q", "-F", "-t", "ext4", "-m", "0", "-N", "8192"])
                .arg(&image))?;
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
        } else {
            let options = format!("size={SIZE_MIB}m,mode=0700");
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&mount))?;
        }
        Ok(Disk { mount })
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.mount).map_err(std::io::Error::from);
        let stat = stat.with_context(|| format!("stat {}", self.mount.display()))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Takes all room but `left`.
    fn fill(&self, left: u64) -> Result<()> {
        let file = File::create(self.ballast()).context("make the ballast")?;
        let size = self.free()?.saturating_sub(left);
        if size == 0 {
            return Ok(());
        }
        let filled = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size);
        filled.map_err(std::io::Error::from).context("write the ballast")
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    fn empty(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("remove the ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With the namespace it goes anyhow.
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::unknown(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Runs rounds of full disks, and says whether all was well.
///
/// # Errors
/// Those of the test itself.
pub(crate) async fn full_rounds(plan: &Plan) -> Result<bool> {
    let mut log = Log::open(&plan.log)?;
    let first = log.rounds.len() as u64;
    let mut here: Option<(Disk, Ground)> = None;
    let (mut clean, mut done) = (true, 0);
    while plan.goes_on(done) {
        let number = first + done;
        if done % ROUNDS_OF_A_ROOT == 0 || here.is_none() {
            if let Some((_disk, mut ground)) = here.take() {
                ground.lives.kill(&Arc::default())?;
            }
            let dir = plan.dir.join(format!("full-{number}"));
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            let disk = Disk::make(&dir, (number / ROUNDS_OF_A_ROOT) % 2 == 1)?;
            let ground = plan.ground(&format!("full-{number}"), Some(&disk.mount.join("root")))?;
            here = Some((disk, ground));
        }
        let Some((disk, ground)) = here.as_mut() else { break };
        let mut round = one_round(plan, disk, ground, number).await?;
        println!(
            "round {number}: {:?}, {} operations, {} refused, {} objects, {} violations, {}",
            round.end,
            round.operations,
            round.refused,
            round.objects,
            round.violations.len(),
            round.detail,
        );
        if !round.violations.is_empty() {
            clean = false;
            round.violations.truncate(20);
            for violation in &round.violations {
                println!("  {violation}");
            }
            here = None;
        }
        log.add(round)?;
        done += 1;
    }
    if let Some((_disk, mut ground)) = here.take() {
        ground.lives.kill(&Arc::default())?;
    }
    println!("{log}");
    Ok(clean)
}

async fn one_round(plan: &Plan, disk: &Disk, ground: &mut Ground, number: u64) -> Result<Round> {
    let seed = plan.seed.wrapping_add(number);
    let mut rng = StdRng::seed_from_u64(seed);
    let killed = number % 2 == 1;
    let mut violations = Vec::new();
    ground.lives.start_whole().await?;
    disk.fill(ROOM_BYTES)?;
    let load = Load {
        address: ground.lives.address(),
        seed,
        life: number * 2,
        tolerance: Tolerance::FullDisk,
        tasks: false,
        blob_bytes: 300_000,
    };
    let clients = Clients::begin(&load, &ground.notes)?;
    let begun = Instant::now();
    while clients.course.refused.load(Ordering::Relaxed) < REFUSALS && begun.elapsed() < FILL {
        if ground.lives.ended()?.is_some() {
            violations.push("the daemon ended by itself".to_owned());
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left = disk.free()?;
    let mut course;
    if killed {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        ground.lives.kill(&clients.course)?;
        course = clients.abandon().await;
        // On the full disk.
        if let Err(error) = ground.lives.start_whole().await {
            violations.push(format!("start on a full disk: {error}"));
            disk.empty()?;
            ground.lives.start_whole().await?;
            disk.fill(left)?;
        }
    } else {
        clients.course.enough.store(true, Ordering::SeqCst);
        course = clients.finish().await?;
    }
    take_violations(&course, &mut violations);
    let (operations, refused) = counts(&course);
    course = Arc::default();
    for client in 0..CLIENTS {
        let with = Load { life: number * 2 + 1, ..load.clone() };
        let mut worker = Worker::new(client, &with, &ground.notes, &course)?;
        if let Err(error) = worker.delete_each().await {
            violations.push(format!("a deletion on a full disk, client {client}: {error}"));
        }
    }
    disk.empty()?;
    // The same daemon goes on.
    let with = Load { life: number * 2 + 1, tolerance: Tolerance::Nothing, ..load };
    let clients = Clients::begin(&with, &ground.notes)?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    clients.course.enough.store(true, Ordering::SeqCst);
    let after = clients.finish().await?;
    take_violations(&after, &mut violations);
    match check(&ground.lives.place(), &ground.notes, After::Kill).await {
        Ok(wrong) => violations.extend(wrong),
        Err(error) => violations.push(format!("check: {error}")),
    }
    if ground.lives.log().contains("panicked at") {
        violations.push("the daemon's log speaks of a panic".to_owned());
    }
    ground.lives.kill(&after)?;
    let (more, _) = counts(&after);
    Ok(Round {
        commit: plan.commit.clone(),
        seed: plan.seed,
        round: number,
        end: End::Full { killed },
        operations: operations + more,
        refused,
        objects: ground.notes.all().len(),
        detail: format!("{left} bytes free when it was full"),
        violations,
    })
}

fn take_violations(course: &Course, violations: &mut Vec<String>) {
    let mut found = course.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    violations.append(&mut found);
}

fn counts(course: &Course) -> (u64, u64) {
    (course.operations.load(Ordering::Relaxed), course.refused.load(Ordering::Relaxed))
}
