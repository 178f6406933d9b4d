//! A real Debian image, made by debootstrap and kept in the storage of a local registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gantry_testkit::{Compression, Image, ImageBuilder, Registry, busybox_image};

use crate::step::{Result, at, run, say, target};

/// The storage of a registry that holds `library/debian:latest` and `library/busybox:latest`; made once.
pub(crate) fn storage() -> Result<PathBuf> {
    let dir = target("demo");
    let storage = dir.join("registry");
    let complete = storage.join("complete");
    if complete.exists() {
        return Ok(storage);
    }
    let _ = fs::remove_dir_all(&storage);
    fs::create_dir_all(&storage).map_err(at(&storage))?;
    let debian = debian(&dir)?;
    say("filling the local registry");
    let registry = Registry::start_with_storage(&storage);
    registry.push(&debian, "library/debian:latest");
    registry.push(&busybox_image(), "library/busybox:latest");
    drop(registry);
    fs::write(&complete, "").map_err(at(&complete))?;
    Ok(storage)
}

fn debian(dir: &Path) -> Result<Image> {
    say("making a Debian image with debootstrap");
    let tree = dir.join("debian");
    let _ = fs::remove_dir_all(&tree);
    let log = dir.join("debootstrap.log");
    let output = fs::File::create(&log).map_err(at(&log))?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "bookworm"]).arg(&tree).stdout(Stdio::from(output));
    run(&mut debootstrap).map_err(|error| format!("{error}; see {}", log.display()))?;
    let archive = dir.join("debian.tar");
    let mut tar = Command::new("tar");
    tar.args([
        "--numeric-owner",
        "--sort=name",
        "--exclude=./var/cache/apt/archives/*.deb",
        "--exclude=./dev/*",
        "-C",
    ]);
    run(tar.arg(&tree).arg("-cf").arg(&archive).arg("."))?;
    let bytes = fs::read(&archive).map_err(at(&archive))?;
    let _ = fs::remove_dir_all(&tree);
    let _ = fs::remove_file(&archive);
    let image = ImageBuilder::new().raw_layer(bytes, Compression::Gzip);
    Ok(image.env("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").cmd(&["bash"]).build())
}
