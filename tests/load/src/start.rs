//! Starting on a store that has grown.

use gantry_testkit::busybox_image;

use crate::figures::{Table, median};
use crate::side::Side;
use crate::{Result, Sizes};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// From the start of the program to its first answer.
pub(crate) async fn starts(sides: &mut [Side; 2], sizes: &Sizes, table: &mut Table) -> Result<()> {
    let what = format!("start with {} containers", sizes.containers);
    measure(sides, sizes, table, &format!("{what}, to the first answer")).await?;
    table.memory(&format!("started with {} containers", sizes.containers), sides).await?;
    if sizes.running == 0 {
        return Ok(());
    }
    for side in sides.iter() {
        run(side, sizes.running);
    }
    measure(sides, sizes, table, &format!("{what}, {} of them running", sizes.running)).await?;
    table.memory(&format!("with {} of them running", sizes.running), sides).await?;
    for side in sides.iter() {
        let ctr = side.daemon.ctr();
        for id in ctr.names(&["tasks", "ls"]) {
            ctr.ok(&["tasks", "rm", "--force", &id]);
            ctr.ok(&["containers", "rm", &id]);
        }
    }
    Ok(())
}

async fn measure(sides: &mut [Side; 2], sizes: &Sizes, table: &mut Table, what: &str) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..sizes.rounds {
        for (at, side) in sides.iter_mut().enumerate() {
            times[at].push(side.restart().await?);
        }
    }
    table.time(what, times.map(|times| median(&times)));
    Ok(())
}

/// Starts `count` containers that stay.
fn run(side: &Side, count: usize) {
    let ctr = side.daemon.ctr();
    let archive = side.daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, IMAGE);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    for number in 0..count {
        // runc keeps the containers of all daemons in one place, so the names differ.
        let id = format!("{}-{number}", side.name);
        ctr.ok(&["run", "-d", "--null-io", IMAGE, &id, "/bin/sleep", "100000"]);
    }
}
