//! Rounds of load that end in a kill, at a random time or at a failpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gantry_core::{Error, Result, ResultExt as _};
use gantry_failpoint::Point;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::check::{After, check};
use crate::daemon::Lives;
use crate::load::{self, CLIENTS, Course, Load, Tolerance, Worker};
use crate::log::{End, Log, Round};
use crate::notes::Notes;

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u64,
    pub(crate) until: Option<Instant>,
    pub(crate) seed: u64,
    pub(crate) log: PathBuf,
    pub(crate) commit: String,
    /// Where roots are made; those of rounds with violations are kept.
    pub(crate) dir: PathBuf,
}

/// After so many rounds a root is given up for a new one.
const ROUNDS_OF_A_ROOT: u64 = 50;
/// How long a load may take to get to an armed failpoint.
const REACH: Duration = Duration::from_secs(4);
/// Every so many rounds the daemon believes in a new boot of the machine, and rebuilds what was not synced.
const ROUNDS_OF_A_BOOT: u64 = 8;

/// A root, with what is known of it.
pub(crate) struct Ground {
    pub(crate) lives: Lives,
    pub(crate) notes: Arc<Notes>,
}

impl Plan {
    pub(crate) fn goes_on(&self, done: u64) -> bool {
        done < self.rounds && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// A new root; `name` tells what it is for.
    pub(crate) fn ground(&self, name: &str, root: Option<&Path>) -> Result<Ground> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Ground { lives: Lives::new(&dir, root), notes: Arc::default() })
    }
}

/// Where and how a round's daemon is to end.
#[derive(Clone, Debug)]
enum Aim {
    Random,
    /// While it works.
    Load(Point, u32),
    /// While it stops.
    Stop(Point),
    /// While it starts, after a kill at a random time.
    Start(Point),
    /// One step fails; killed at a random time.
    Fail(Point, u32),
}

impl Aim {
    fn choose(round: u64, hits: &std::collections::BTreeMap<&'static str, usize>, rng: &mut StdRng) -> Aim {
        if round % 10 == 9 {
            let points: Vec<Point> =
                Point::ALL.iter().copied().filter(|point| Self::can_fail(*point)).collect();
            return Aim::Fail(points[rng.random_range(0..points.len())], rng.random_range(1..10));
        }
        if round.is_multiple_of(2) {
            return Aim::Random;
        }
        // The one that was hit least; of several, any.
        let least = hits.values().min().copied().unwrap_or(0);
        let points: Vec<Point> =
            Point::ALL.iter().copied().filter(|point| hits[point.name()] == least).collect();
        let point = points[rng.random_range(0..points.len())];
        match point {
            Point::DaemonStopping | Point::StoreMarkedClean | Point::SnapshotSynced => Aim::Stop(point),
            Point::DaemonStarted
            | Point::DaemonServing
            | Point::RecoveryOpened
            | Point::RecoveryCompared
            | Point::RebuildApplied
            | Point::RebuildRecorded => Aim::Start(point),
            _ => Aim::Load(point, if least == 0 { 1 } else { rng.random_range(1..6) }),
        }
    }

    /// Whether a failure at this point can be told to somebody.
    fn can_fail(point: Point) -> bool {
        matches!(
            point,
            Point::IngestRecorded
                | Point::IngestMade
                | Point::IngestWritten
                | Point::ContentSynced
                | Point::ContentRenamed
                | Point::ContentNamed
                | Point::ContentStored
                | Point::SnapshotFixedUp
                | Point::CollectionMarked
        )
    }

    fn armed(&self) -> String {
        match self {
            Aim::Load(point, passage) => format!("{}=kill@{passage}", point.name()),
            Aim::Stop(point) => format!("{}=kill@1", point.name()),
            Aim::Fail(point, passage) => format!("{}=error@{passage}", point.name()),
            Aim::Random | Aim::Start(_) => String::new(),
        }
    }
}

/// The clients of one load, at work.
pub(crate) struct Clients {
    pub(crate) course: Arc<Course>,
    working: JoinSet<()>,
}

impl Clients {
    /// Lets them begin.
    ///
    /// # Errors
    /// Those of connecting.
    pub(crate) fn begin(load: &Load, notes: &Arc<Notes>) -> Result<Clients> {
        let course = Arc::new(Course::default());
        let mut working = JoinSet::new();
        for number in 0..CLIENTS {
            working.spawn(Worker::new(number, load, notes, &course)?.run());
        }
        Ok(Clients { course, working })
    }

    /// Lets go of clients whose daemon has ended: soon, since what they would still do is tidy up in vain.
    pub(crate) async fn abandon(mut self) -> Arc<Course> {
        let all = async { while self.working.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_millis(200), all).await;
        self.working.shutdown().await;
        self.course
    }

    /// Waits until each has heard of the end.
    ///
    /// # Errors
    /// `DeadlineExceeded` if a call hangs.
    pub(crate) async fn finish(mut self) -> Result<Arc<Course>> {
        let all = async { while self.working.join_next().await.is_some() {} };
        let time = gantry_testkit::scaled(Duration::from_secs(30));
        if tokio::time::timeout(time, all).await.is_err() {
            return Err(Error::deadline_exceeded("a client's call hangs"));
        }
        Ok(self.course)
    }
}

/// Runs rounds of kills, and says whether all was well.
///
/// # Errors
/// Those of the test itself.
pub(crate) async fn kill_rounds(plan: &Plan) -> Result<bool> {
    let mut log = Log::open(&plan.log)?;
    let first = log.rounds.len() as u64;
    let mut ground = None;
    let mut clean = true;
    let mut done = 0;
    while plan.goes_on(done) {
        let number = first + done;
        if done % ROUNDS_OF_A_ROOT == 0 || ground.is_none() {
            close(ground.take()).await?;
            ground = Some(open(plan, number).await?);
        }
        let Some(here) = ground.as_mut() else { break };
        let seed = plan.seed.wrapping_add(number);
        let mut round = one_round(plan, here, number, seed, &log.hits()).await?;
        println!(
            "round {number}: {:?}, {} operations, {} objects, {} violations{}{}",
            round.end,
            round.operations,
            round.objects,
            round.violations.len(),
            if round.detail.is_empty() { "" } else { ", " },
            round.detail,
        );
        if !round.violations.is_empty() {
            clean = false;
            round.violations.truncate(20);
            for violation in &round.violations {
                println!("  {violation}");
            }
            // Its directory is kept for study; the next round begins anew.
            if let Some(ground) = &mut ground
                && let Err(error) = end_tasks(ground).await
            {
                println!("  end what runs: {error}");
            }
            ground = None;
        }
        log.add(round)?;
        done += 1;
    }
    close(ground.take()).await?;
    println!("{log}");
    Ok(clean)
}

async fn open(plan: &Plan, number: u64) -> Result<Ground> {
    let mut ground = plan.ground(&format!("root-{number}"), None)?;
    ground.lives.boot = Some(0);
    Ok(ground)
}

/// Ends what runs on a root, looks for leftovers, and removes the root.
async fn close(ground: Option<Ground>) -> Result<()> {
    let Some(mut ground) = ground else { return Ok(()) };
    let place = ground.lives.place();
    end_tasks(&mut ground).await?;
    if let Some(dir) = place.address.parent() {
        std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

async fn end_tasks(ground: &mut Ground) -> Result<()> {
    ground.lives.start_whole().await?;
    let client = load::connect(&ground.lives.address(), load::RUN_NAMESPACE)?;
    for task in client.services().tasks.list(&client.context()).await? {
        load::remove_container(&client, &task.id).await?;
    }
    ground.lives.terminate()?;
    if ground.lives.wait(Duration::from_secs(20)).await? {
        return Ok(());
    }
    Err(Error::deadline_exceeded("gantryd does not stop"))
}

async fn one_round(
    plan: &Plan,
    ground: &mut Ground,
    number: u64,
    seed: u64,
    hits: &std::collections::BTreeMap<&'static str, usize>,
) -> Result<Round> {
    let mut rng = StdRng::seed_from_u64(seed);
    let aim = Aim::choose(number, hits, &mut rng);
    let mut violations = Vec::new();
    let mut end = End::Killed;
    let mut course = Arc::new(Course::default());
    let begun = Instant::now();
    if ground.lives.start(&aim.armed()).await? {
        let load = Load {
            address: ground.lives.address(),
            seed,
            life: number,
            tolerance: if matches!(aim, Aim::Fail(..)) { Tolerance::Injected } else { Tolerance::Nothing },
            tasks: true,
            blob_bytes: 100_000,
        };
        let client = load::connect(&load.address, load::RUN_NAMESPACE)?;
        if let Err(error) = load::prepare_image(&client).await
            && !ground.lives.wait(Duration::from_secs(2)).await?
            && !matches!(aim, Aim::Fail(..))
        {
            violations.push(format!("prepare the image: {error}"));
        }
        let clients = Clients::begin(&load, &ground.notes)?;
        let random = Duration::from_millis(rng.random_range(50..700));
        let reached = match &aim {
            Aim::Load(..) => ground.lives.wait(REACH).await?,
            Aim::Stop(_) => {
                tokio::time::sleep(random).await;
                clients.course.over.store(true, Ordering::SeqCst);
                ground.lives.terminate()?;
                ground.lives.wait(Duration::from_secs(20)).await?
            }
            _ => ground.lives.wait(random).await? && !ended_by_itself(&aim, &mut violations),
        };
        ground.lives.kill(&clients.course)?;
        if let Aim::Load(point, passage) = &aim {
            end = End::Failpoint { name: point.name().to_owned(), passage: *passage, reached };
        }
        if let Aim::Stop(point) = &aim {
            end = End::Failpoint { name: point.name().to_owned(), passage: 1, reached };
        }
        course = clients.abandon().await;
    } else if let Aim::Load(point, passage) = &aim {
        // The start passes it, too.
        end = End::Failpoint { name: point.name().to_owned(), passage: *passage, reached: true };
    } else {
        violations.push("the daemon ended while it started".to_owned());
    }
    if let Aim::Fail(point, passage) = &aim {
        end = End::Failed { name: point.name().to_owned(), passage: *passage };
    }
    if let Aim::Start(point) = &aim {
        let rebuild = matches!(point, Point::RebuildApplied | Point::RebuildRecorded);
        if rebuild {
            ground.lives.boot = ground.lives.boot.map(|boot| boot + 1);
        }
        let ended = !ground.lives.start(&format!("{}=kill@1", point.name())).await?;
        let reached = ended || (rebuild && ground.lives.wait(REACH).await?);
        ground.lives.kill(&course)?;
        end = End::Failpoint { name: point.name().to_owned(), passage: 1, reached };
    }
    let loaded = begun.elapsed();
    let new_boot = number % ROUNDS_OF_A_BOOT == ROUNDS_OF_A_BOOT - 1;
    if new_boot {
        ground.lives.boot = ground.lives.boot.map(|boot| boot + 1);
    }
    ground.lives.start_whole().await?;
    let checked = Instant::now();
    match check(&ground.lives.place(), &ground.notes, After::Kill).await {
        Ok(wrong) => violations.extend(wrong),
        Err(error) => violations.push(format!("check: {error}")),
    }
    violations.extend(std::mem::take(
        &mut *course.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
    ));
    if ground.lives.log().contains("panicked at") {
        violations.push("the daemon's log speaks of a panic".to_owned());
    }
    let detail = format!(
        "{}load {} ms, check {} ms",
        if new_boot { "new boot, " } else { "" },
        loaded.as_millis(),
        checked.elapsed().as_millis()
    );
    // The daemon of the check ends as suddenly as any other.
    ground.lives.kill(&course)?;
    Ok(Round {
        commit: plan.commit.clone(),
        seed: plan.seed,
        round: number,
        end,
        operations: course.operations.load(Ordering::Relaxed),
        refused: course.refused.load(Ordering::Relaxed),
        objects: ground.notes.all().len(),
        detail,
        violations,
    })
}

/// A daemon that was to live must not end: that is a violation. Always true.
fn ended_by_itself(aim: &Aim, violations: &mut Vec<String>) -> bool {
    violations.push(format!("the daemon ended by itself ({aim:?})"));
    true
}
