//! A small real image: the machine's static busybox.

use std::fs;
use std::process::Command;

use crate::binaries::find_in_path;
use crate::command::run;
use crate::image::{Compression, Image, ImageBuilder};
use crate::tar::Tar;

/// A root file system with busybox, its applets as symbolic links, and what programs expect in `/etc`.
#[must_use]
pub fn busybox_layer() -> Tar {
    let path = find_in_path("busybox").expect("busybox is installed (package busybox-static)");
    let binary = fs::read(&path).expect("busybox reads");
    let applets = run(Command::new(&path).arg("--list")).expect_success("busybox --list");
    let mut tar = Tar::new();
    for dir in ["bin", "dev", "etc", "home", "home/user", "proc", "sys", "usr", "var"] {
        tar = tar.dir(dir, 0o755);
    }
    tar = tar
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nstaff:x:50:user\n")
        .file("bin/busybox", 0o755, binary);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    tar
}

/// An image of that layer which runs a shell.
#[must_use]
pub fn busybox_image() -> Image {
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .env("PATH=/bin")
        .env("COLOUR=green")
        .cmd(&["sh"])
        .label("org.example.kind", "test")
        .build()
}
