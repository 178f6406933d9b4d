//! Development commands: `cargo xtask demo | test | check | layers | e2e | bench | crash | fuzz | vm`.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "this program starts others and waits for no child but its own")]

mod bench;
mod check;
mod crash;
mod crash_power;
mod debian_image;
mod demo;
mod dependencies;
mod e2e;
mod fuzz;
mod initrd;
mod layers;
mod metadata;
mod programs;
mod setup;
mod step;
mod testing;
mod vm;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--online]      a tour of the daemon and the command line, on private directories
  test [filter]        every test, those that need root included
  check                format, lints, layers, licences, sources, duplicate versions, documents
  layers               only the layers of STYLE.md section 1
  dependencies         only licences, sources and duplicate versions
  e2e [--no-build] [filter]
                       the end-to-end suite; GANTRY_E2E_DAEMON chooses the daemon (gantryd, containerd, a path)
  bench run [--rounds N] [--debug]
                       `ctr run --rm`: wall and CPU time, against Debian's containerd
  bench memory         resident memory of daemon and shim
  bench store [--containers N] [--blobs N] [--running N] [--rounds N] [--debug]
                       calls, lists, collections, starts and memory of the store, against Debian's containerd
  bench execs [--execs N] [--clients N] [--debug]
                       what 10,000 execs and clients that vanish leave in daemon and shim; fails if that is anything
  fuzz [target] [--minutes N]
                       the fuzz targets of fuzz/, a minute each; needs nightly
  crash [--no-build] [--kind kill|full|power] [--rounds N] [--minutes M] [--seed S]
                       rounds of load that end in a crash, and what must hold afterwards; appends to target/crash
  vm [--no-build] [filter]
                       the end-to-end suite on cgroup v2 in a virtual machine
  setup                only install the Debian packages that the above use
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.split_first() {
        Some((&"demo", rest)) => demo::demo(rest),
        Some((&"test", rest)) => testing::test(rest),
        Some((&"check", [])) => check::check(),
        Some((&"layers", [])) => layers::layers(),
        Some((&"dependencies", [])) => dependencies::dependencies(),
        Some((&"e2e", rest)) => e2e::e2e(rest),
        Some((&"bench", rest)) => bench::bench(rest),
        Some((&"fuzz", rest)) => fuzz::fuzz(rest),
        Some((&"crash", rest)) => crash::crash(rest),
        Some((&"vm", rest)) => vm::vm(rest),
        Some((&"setup", [])) => setup::setup(setup::NEEDED),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
