//! Installing the Debian packages that demo and tests use.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::step::{Result, at, capture, need_root, run, say};

/// What building, testing and the demo need, and what for.
pub(crate) const NEEDED: &[&str] = &[
    "gcc",             // SQLite, zstd and ring are compiled
    "libc6-dev",       //
    "libseccomp-dev",  // the built-in runtime's filters
    "libelf-dev",      // its device rules on cgroup v2, which libbpf loads
    "zlib1g-dev",      //
    "make",            // builds libbpf
    "pkg-config",      // finds these libraries
    "containerd",      // the peer, its shim, and ctr
    "runc",            // a runtime by name
    "crun",            // another
    "docker-registry", // a real registry on loopback
    "busybox-static",  // images for tests
    "debootstrap",     // a real Debian image
    "iproute2",        // brings up a test's loopback
];

/// What the virtual machine needs on top.
pub(crate) const VM: &[&str] = &["qemu-system-x86", "e2fsprogs", "kmod", "binutils"];

/// Installs those of `packages` that are missing. Nothing that they bring is left running.
pub(crate) fn setup(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("installing {}", missing.join(" ")));
    need_root("installing packages")?;
    let quiet = Quiet::begin()?;
    let installed = install(&missing).or_else(|_| {
        // Lists of packages that are old, or were never fetched, are the usual reason.
        run(Command::new("apt-get").args(["-q", "update"]))?;
        install(&missing)
    });
    quiet.end()?;
    installed
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if gantry_testkit::find_in_path("dpkg-query").is_none() {
        return Err(format!(
            "this is no Debian; install what these packages bring by hand: {}",
            packages.join(" ")
        ));
    }
    let known = capture(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]))?;
    let installed: BTreeSet<&str> =
        known.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(packages.iter().copied().filter(|name| !installed.contains(name)).collect())
}

fn install(packages: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-y", "--no-install-recommends", "install"]).args(packages);
    run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// While this lasts, packages do not start their services.
///
/// Source: Debian's invoke-rc.d(8): a policy-rc.d that ends with 101 forbids the action.
struct Quiet {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Quiet {
    fn begin() -> Result<Quiet> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(Quiet { ours: false });
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").map_err(at(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(at(path))?;
        Ok(Quiet { ours: true })
    }

    fn end(self) -> Result<()> {
        if self.ours { fs::remove_file(POLICY).map_err(at(Path::new(POLICY))) } else { Ok(()) }
    }
}
