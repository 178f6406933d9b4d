//! What one object costs as the store grows.

use std::time::Duration;

use crate::containers::{LARGE, create, get};
use crate::figures::{REST, median, memory_of};
use crate::side::{CLIENTS, Side};
use crate::{Result, Sizes};

/// How many calls make a figure.
const CALLS: usize = 300;
struct Line {
    stored: usize,
    create: [Duration; 2],
    get: [Duration; 2],
    memory: [f64; 2],
}

/// The growth curve.
pub(crate) struct Grown {
    names: [&'static str; 2],
    lines: Vec<Line>,
}

/// Fills the large store, looking at sizes in between. The calls of the figures are part of what fills it.
pub(crate) async fn grow(sides: &[Side; 2], sizes: &Sizes) -> Result<Grown> {
    let mut steps: Vec<usize> = [100, 300, 1000, 3000, 10_000, 30_000, 100_000].into();
    steps.retain(|step| *step < sizes.containers);
    steps.push(sizes.containers);
    let mut lines = Vec::new();
    let mut stored = 0;
    for step in steps {
        let mut line =
            Line { stored: step, create: [Duration::ZERO; 2], get: [Duration::ZERO; 2], memory: [0.0; 2] };
        for (at, side) in sides.iter().enumerate() {
            let last = CALLS.min(step - stored);
            create(side, LARGE, CLIENTS, stored, step - stored - last).await?;
            let (_, each) = create(side, LARGE, 1, step - last, last).await?;
            line.create[at] = median(&each);
            let (_, each) = get(side, LARGE, 1, step, CALLS).await?;
            line.get[at] = median(&each);
        }
        tokio::time::sleep(REST).await;
        for (at, side) in sides.iter().enumerate() {
            line.memory[at] = memory_of(side, "Pss:")?;
        }
        lines.push(line);
        stored = step;
    }
    Ok(Grown { names: sides.each_ref().map(|side| side.name), lines })
}

impl Grown {
    pub(crate) fn print(&self) {
        let [ours, theirs] = self.names;
        println!("\nmedians of {CALLS} calls by one client; memory is PSS at rest");
        println!("{:>10} {ours:>34} {theirs:>34}", "containers");
        let head = format!("{:>11} {:>11} {:>10}", "create us", "get us", "KiB");
        println!("{:>10} {head} {head}", "");
        for line in &self.lines {
            print!("{:>10}", line.stored);
            for at in 0..2 {
                let micros = |time: Duration| time.as_secs_f64() * 1e6;
                print!(
                    " {:>11.0} {:>11.0} {:>10.0}",
                    micros(line.create[at]),
                    micros(line.get[at]),
                    line.memory[at]
                );
            }
            println!();
        }
    }
}
