//! The end-to-end suite on cgroup v2: Debian's own kernel in QEMU, emulated in software.
//!
//! ```text
//!  target/vm/kernel      Debian's cloud kernel, unpacked, never installed
//!  target/vm/root.img    a minimal Debian with the packages of the suite; never written to
//!  target/vm/payload.img our programs and the test binary, made anew for each run
//!  target/vm/initrd      busybox and the modules that find the two disks
//! ```

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::initrd;
use crate::programs::{build, build_go};
use crate::setup::{NEEDED, VM, setup};
use crate::step::{Result, at, capture, cargo, need_root, run, say, target};
use crate::testing::Tally;

/// What is installed in the machine, besides a minimal Debian.
const PACKAGES: &str = "containerd,runc,crun,docker-registry,busybox-static,iproute2,kmod,libseccomp2";
/// The last line that the machine prints, followed by the exit code of the tests.
const MARKER: &str = "GANTRY-VM-EXIT ";
/// A line of a test that did not run.
const SKIPPED: &str = "GANTRY-VM-SKIPPED ";

/// The kernel's command line. Emulated on a busy host, the timer may seem not to tick while it is tested at boot, and the
/// kernel then panics.
///
/// Source: Linux, Documentation/admin-guide/kernel-parameters.txt, `no_timer_check`.
pub(crate) const KERNEL_LINE: &str = "console=ttyS0 quiet loglevel=3 panic=-1 no_timer_check net.ifnames=0";

/// Runs the suite in the machine; `args` go to the test binary, after `--no-build` which takes programs as they are.
/// After `runtime` it is the tests of `lib/runtime`, and the next argument, unless it is a flag, names one of its binaries.
pub(crate) fn vm(args: &[&str]) -> Result<()> {
    need_root("cargo xtask vm")?;
    setup(NEEDED)?;
    setup(VM)?;
    let dir = target("vm");
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    let kernel = Kernel::fetch(&dir)?;
    let root = root_disk(&dir, &kernel)?;
    let payload = match args.split_first() {
        Some((&"runtime", rest)) => {
            let (only, rest) = match rest.split_first() {
                Some((name, rest)) if !name.starts_with('-') => (Some(*name), rest),
                _ => (None, rest),
            };
            payload_disk(&dir, &runtime_tests(only)?, rest)?
        }
        Some((&"--no-build", rest)) => payload_disk(&dir, &[("e2e".to_owned(), test_binary()?)], rest)?,
        _ => {
            build(false)?;
            build_go()?;
            payload_disk(&dir, &[("e2e".to_owned(), test_binary()?)], args)?
        }
    };
    let initrd = kernel.initrd(&dir)?;
    boot(&kernel.image, &initrd, &root, &payload)
}

/// Debian's kernel for clouds.
pub(crate) struct Kernel {
    /// The kernel itself.
    pub(crate) image: PathBuf,
    modules: PathBuf,
    version: String,
}

impl Kernel {
    /// Fetches and unpacks the package, unless that was done before.
    pub(crate) fn fetch(dir: &Path) -> Result<Kernel> {
        let unpacked = dir.join("kernel");
        if !unpacked.join("complete").exists() {
            say("fetching Debian's cloud kernel");
            let depends = capture(Command::new("apt-cache").args([
                "depends",
                "--important",
                "linux-image-cloud-amd64",
            ]))?;
            let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
            let package = package.ok_or("apt-cache knows no linux-image-cloud-amd64: run apt-get update")?;
            let debs = dir.join("debs");
            let _ = fs::remove_dir_all(&debs);
            fs::create_dir_all(&debs).map_err(at(&debs))?;
            run(Command::new("apt-get").args(["-q", "download", package]).current_dir(&debs))?;
            let deb = only_entry(&debs)?;
            run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
            File::create(unpacked.join("complete")).map_err(at(&unpacked))?;
        }
        let modules = only_entry(&unpacked.join("lib/modules"))?;
        let version = modules.file_name().ok_or("a kernel without a version")?.to_string_lossy().into_owned();
        run(Command::new("depmod").arg("-b").arg(&unpacked).arg(&version)).or_else(|_| {
            // Without kmod on this machine the package's own list will do, if it has one.
            if modules.join("modules.dep").exists() {
                Ok(())
            } else {
                Err("depmod is missing: install kmod".to_owned())
            }
        })?;
        Ok(Kernel { image: unpacked.join(format!("boot/vmlinuz-{version}")), modules, version })
    }

    /// A file system in memory that mounts the disks and goes on there.
    pub(crate) fn initrd(&self, dir: &Path) -> Result<PathBuf> {
        let mut archive = initrd::Cpio::new();
        for name in ["bin", "proc", "sys", "dev", "new", "modules"] {
            archive.dir(name);
        }
        let busybox = gantry_testkit::find_in_path("busybox").ok_or("busybox is missing")?;
        archive.file("bin/busybox", 0o755, &fs::read(&busybox).map_err(at(&busybox))?);
        let mut script = String::from(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc proc /proc\nmount -t devtmpfs dev /dev\n",
        );
        for module in initrd::with_dependencies(&self.modules, &["virtio_pci", "virtio_blk", "ext4"])? {
            let content = fs::read(&module).map_err(at(&module))?;
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("modules/{name}"), 0o644, &content);
            script.push_str(&format!("insmod /modules/{name}\n"));
        }
        script.push_str(
            "while ! [ -b /dev/vdb ]; do sleep 0.1; done\nmount -t ext4 /dev/vda /new\nmount -t ext4 -o ro /dev/vdb /new/gantry\numount /proc\nexec switch_root /new /gantry/init\n",
        );
        archive.file("init", 0o755, script.as_bytes());
        let path = dir.join("initrd");
        fs::write(&path, archive.finish()).map_err(at(&path))?;
        Ok(path)
    }
}

/// The only thing in `dir`.
fn only_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).map_err(at(dir))?;
    let first = entries.next().ok_or_else(|| format!("{} is empty", dir.display()))?.map_err(at(dir))?;
    if entries.next().is_some() {
        Err(format!("{} holds more than one thing", dir.display()))
    } else {
        Ok(first.path())
    }
}

/// The machine's Debian, made once.
pub(crate) fn root_disk(dir: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let disk = dir.join(format!("root-{}.img", kernel.version));
    if disk.exists() {
        return Ok(disk);
    }
    say("making the machine's Debian");
    let tree = dir.join("root");
    let _ = fs::remove_dir_all(&tree);
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include", PACKAGES, "bookworm"]).arg(&tree);
    run(debootstrap.stdout(Stdio::null()))?;
    let modules = tree.join("lib/modules");
    fs::create_dir_all(&modules).map_err(at(&modules))?;
    run(Command::new("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
    let mount = tree.join("gantry");
    fs::create_dir_all(&mount).map_err(at(&mount))?;
    make_disk(&tree, &disk, "4G")?;
    let _ = fs::remove_dir_all(&tree);
    Ok(disk)
}

/// A disk with our programs and the tests, which run one after another.
fn payload_disk(dir: &Path, tests: &[(String, PathBuf)], args: &[&str]) -> Result<PathBuf> {
    let tree = dir.join("payload");
    let _ = fs::remove_dir_all(&tree);
    for sub in ["bin/examples", "go"] {
        let path = tree.join(sub);
        fs::create_dir_all(&path).map_err(at(&path))?;
    }
    for (name, binary) in tests {
        copy_stripped(binary, &tree.join("bin").join(name))?;
    }
    let ours = ["gantryd", "gantry", "containerd-shim-runc-v2", "gantry-runtime-helper"]
        .map(|name| (target("debug"), "bin", name));
    let theirs = ["debian_container", "ctr", "containerd", "containerd-shim-runc-v2"];
    let theirs = theirs.map(|name| (target("go"), "go", name));
    let example = [(target("debug/examples"), "bin/examples", "debian_container")];
    for (from, to, name) in ours.into_iter().chain(theirs).chain(example) {
        let built = from.join(name);
        // A story that needs what is missing says so.
        if built.exists() {
            copy_stripped(&built, &tree.join(to).join(name))?;
        }
    }
    let args: Vec<String> = args.iter().map(|arg| format!("'{}'", arg.replace('\'', "'\\''"))).collect();
    let daemon = std::env::var("GANTRY_E2E_DAEMON").unwrap_or_default();
    let names: Vec<&str> = tests.iter().map(|(name, _)| name.as_str()).collect();
    let script = include_str!("vm_init.sh").replace("@ARGS@", &args.join(" ")).replace("@DAEMON@", &daemon);
    let script = script.replace("@TESTS@", &names.join(" "));
    let init = tree.join("init");
    fs::write(&init, script).map_err(at(&init))?;
    run(Command::new("chmod").arg("755").arg(&init))?;
    let disk = dir.join("payload.img");
    make_disk(&tree, &disk, "1G")?;
    Ok(disk)
}

fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").arg("-o").arg(to).arg(from))
}

/// Builds the suite; where its binary is.
fn test_binary() -> Result<PathBuf> {
    say("building the end-to-end tests");
    let mut built = test_binaries("gantry-e2e")?;
    built.pop().map(|(_, binary)| binary).ok_or_else(|| "cargo names no test binary".to_owned())
}

/// Builds the tests of `lib/runtime` that need a cgroup file system of their own; all, or the one called `only`.
fn runtime_tests(only: Option<&str>) -> Result<Vec<(String, PathBuf)>> {
    say("building the tests of lib/runtime");
    run(&mut cargo(&["build", "--package", "gantry-runtime"]))?;
    let mut built = test_binaries("gantry-runtime")?;
    built.retain(|(name, _)| only.map_or(name != "figures", |only| name == only));
    if built.is_empty() { Err("lib/runtime has no such tests".to_owned()) } else { Ok(built) }
}

/// Builds a package's tests; their names, and where they are.
fn test_binaries(package: &str) -> Result<Vec<(String, PathBuf)>> {
    let args = ["test", "--no-run", "--message-format", "json", "--package", package, "--test", "*"];
    let printed = capture(&mut cargo(&args))?;
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let tests = messages.filter_map(|message| {
        let test = message["profile"]["test"] == true;
        let binary = message["executable"].as_str().filter(|_| test)?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(binary)))
    });
    Ok(tests.collect())
}

/// An ext4 disk with what is in `tree`.
pub(crate) fn make_disk(tree: &Path, disk: &Path, size: &str) -> Result<()> {
    let partial = disk.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let mke2fs = gantry_testkit::find_in_path("mke2fs").ok_or("mke2fs is missing (package e2fsprogs)")?;
    run(Command::new(mke2fs).args(["-q", "-t", "ext4", "-d"]).arg(tree).arg(&partial).arg(size))?;
    fs::rename(&partial, disk).map_err(at(disk))
}

/// Boots the machine, shows what it prints, and ends as its tests did.
fn boot(kernel: &Path, initrd: &Path, root: &Path, payload: &Path) -> Result<()> {
    say("booting: Debian's kernel, cgroup v2, software emulation");
    let disk = |path: &Path, extra: &str| format!("file={},if=virtio,format=raw{extra}", path.display());
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    command.args(["-append", KERNEL_LINE]);
    // Writes to the machine's Debian go to a temporary file.
    command.arg("-drive").arg(disk(root, ",snapshot=on"));
    command.arg("-drive").arg(disk(payload, ",readonly=on"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start QEMU: {error}"))?;
    let output = child.stdout.take().ok_or("QEMU has no output")?;
    let mut tally = Tally::default();
    let mut code = None;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|error| format!("read the serial console: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        if let Some(end) = line.strip_prefix(MARKER) {
            code = end.trim().parse::<i32>().ok();
        } else if let Some((name, reason)) = line.strip_prefix(SKIPPED).and_then(|rest| rest.split_once('\t'))
        {
            tally.note(name, reason);
        } else {
            println!("{line}");
            tally.take(line);
        }
    }
    let status = child.wait().map_err(|error| format!("wait for QEMU: {error}"))?;
    match code {
        Some(0) => tally.finish(),
        Some(code) => {
            let _ = tally.finish();
            Err(format!("the tests in the machine ended with {code}"))
        }
        None => Err(format!("the machine ended without a result ({status})")),
    }
}
