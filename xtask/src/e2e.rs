//! The end-to-end suite alone.

use crate::programs::{build, build_go};
use crate::setup::{NEEDED, setup};
use crate::step::{Result, cargo, need_root, say};
use crate::testing::run_tests;

/// Runs the suite against the daemon that `GANTRY_E2E_DAEMON` names. `args` go to the test binary, after
/// `--no-build` which takes the programs as they are.
pub(crate) fn e2e(args: &[&str]) -> Result<()> {
    need_root("cargo xtask e2e")?;
    setup(NEEDED)?;
    let args = match args.split_first() {
        Some((&"--no-build", rest)) => rest,
        _ => {
            build(false)?;
            build_go()?;
            args
        }
    };
    let daemon = std::env::var("GANTRY_E2E_DAEMON").unwrap_or_else(|_| "gantryd".to_owned());
    say(&format!("end-to-end suite on {daemon}"));
    let mut command = cargo(&["test", "--package", "gantry-e2e", "--"]);
    command.args(args);
    run_tests(&mut command)
}
