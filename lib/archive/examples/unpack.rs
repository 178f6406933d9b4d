//! `unpack LAYER DIR [LOWER]...`: extracts a layer and prints its diff id and the time it took. With lower directories,
//! newest first, DIR is the upper directory of an overlay.

use std::path::PathBuf;
use std::time::Instant;

use gantry_archive::{Lowers, OverlayXattrs, Target, apply_layer};
use gantry_core::{Context, Error, Result, ResultExt};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(layer), Some(dir)) = (args.next(), args.next()) else {
        return Err(Error::invalid_argument("usage: unpack LAYER DIR [LOWER]..."));
    };
    let lowers: Vec<PathBuf> = args.collect();
    let target = match lowers.is_empty() {
        true => Target::Directory(dir),
        false => {
            Target::Overlay { upper: dir, lowers: Lowers::Known(lowers), xattrs: OverlayXattrs::Trusted }
        }
    };
    let file = std::fs::File::open(&layer).with_context(|| format!("open {}", layer.display()))?;
    let begun = Instant::now();
    let done = apply_layer(&Context::background(), file, None, &target)?;
    println!("{} {} entries in {:?}", done.diff_id, done.applied.entries, begun.elapsed());
    Ok(())
}
