//! Starting on a store that has grown.

use crate::figures::{Table, median};
use crate::side::Side;
use crate::{Result, Sizes};

/// From the start of the program to its first answer.
pub(crate) async fn starts(sides: &mut [Side; 2], sizes: &Sizes, table: &mut Table) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..sizes.rounds {
        for (at, side) in sides.iter_mut().enumerate() {
            times[at].push(side.restart().await?);
        }
    }
    let what = format!("start with {} containers, to the first answer", sizes.containers);
    table.time(&what, times.map(|times| median(&times)));
    Ok(())
}
