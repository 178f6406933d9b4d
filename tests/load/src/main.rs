//! Load on running daemons, and what it took.
//!
//! `gantry-load execs [--execs N] [--clients N]`: execs, and clients that attach and vanish, leave daemon and shim with
//! the descriptors, threads and memory that they had before. `cargo xtask bench execs` starts it.
//!
//! `gantry-load store|calls|collection [--containers N] [--blobs N] [--running N] [--rounds N]`. `cargo xtask bench store` builds it, and starts it under kernel
//! namespaces and cgroups of its own. Ours and Debian's containerd take turns; both keep their roots on the same disk; every client has a connection of
//! its own.
#![forbid(unsafe_code)]

mod collection;
mod containers;
mod execs;
mod figures;
mod growth;
mod raw;
mod side;
mod start;

use std::process::ExitCode;

use execs::Counts;
use figures::Table;
use side::Side;

const USAGE: &str =
    "usage: gantry-load store|calls|collection [--containers N] [--blobs N] [--running N] [--rounds N]
       gantry-load execs [--execs N] [--clients N]";

/// What went wrong, as a sentence.
type Result<T, E = String> = std::result::Result<T, E>;

/// How much of everything.
struct Sizes {
    /// Containers in the large store.
    containers: usize,
    /// Blobs' records to be collected.
    blobs: usize,
    /// Containers that run while the daemons start anew.
    running: usize,
    /// How often each figure is taken.
    rounds: usize,
}

impl Sizes {
    fn read(args: &[String]) -> Result<Sizes> {
        let mut sizes = Sizes { containers: 10_000, blobs: 100_000, running: 200, rounds: 5 };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err(format!("{pair:?}: a number is missing")) };
            let value: usize = value.parse().map_err(|_| format!("{name} {value:?}: not a number"))?;
            match name.as_str() {
                "--containers" => sizes.containers = value.max(100),
                "--blobs" => sizes.blobs = value.max(100),
                "--running" => sizes.running = value,
                "--rounds" => sizes.rounds = value.max(1),
                _ => return Err(format!("{name}: no such option")),
            }
        }
        Ok(sizes)
    }
}

async fn store(sizes: &Sizes) -> Result<()> {
    let mut sides = [Side::ours()?, Side::peer()?];
    let mut table = Table::new(sides.each_ref().map(|side| side.name));
    table.memory("at the start", &sides).await?;
    containers::calls(&sides, sizes, &mut table).await?;
    table.memory("after the creates", &sides).await?;
    let grown = growth::grow(&sides, sizes).await?;
    containers::lists(&sides, sizes, &mut table).await?;
    table.memory(&format!("with {} containers, after the lists", sizes.containers), &sides).await?;
    start::starts(&mut sides, sizes, &mut table).await?;
    collection::collect(&sides, sizes, &mut table).await?;
    table.memory(&format!("after the collection of {} blobs", sizes.blobs), &sides).await?;
    table.print();
    grown.print();
    Ok(())
}

/// The calls alone, which takes seconds: for profiles.
async fn calls(sizes: &Sizes) -> Result<()> {
    let sides = [Side::ours()?, Side::peer()?];
    let mut table = Table::new(sides.each_ref().map(|side| side.name));
    containers::calls(&sides, sizes, &mut table).await?;
    table.print();
    Ok(())
}

/// The collection alone.
async fn collection(sizes: &Sizes) -> Result<()> {
    let sides = [Side::ours()?, Side::peer()?];
    let mut table = Table::new(sides.each_ref().map(|side| side.name));
    collection::collect(&sides, sizes, &mut table).await?;
    table.print();
    Ok(())
}

async fn run(what: &str, rest: &[String]) -> Result<()> {
    match what {
        "store" => store(&Sizes::read(rest)?).await,
        "calls" => calls(&Sizes::read(rest)?).await,
        "collection" => collection(&Sizes::read(rest)?).await,
        "execs" => execs::execs(&Counts::read(rest)?).await,
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((what, rest)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.map_err(|error| format!("start the runtime: {error}"));
            runtime.and_then(|runtime| runtime.block_on(run(what, rest)))
        }
        None => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-load: {error}");
            ExitCode::FAILURE
        }
    }
}
