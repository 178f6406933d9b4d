//! The process that stays beside a container: `start`, `delete`, `-v`, `-info`, and the shim itself.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

use gantry_core::{Result, ResultExt};
use gantry_shim::bootstrap::{MAX_INPUT_BYTES, Told};
use gantry_shim::command_line::{Arguments, Command};
use gantry_shim::{cleanup, info, serve, start};
use prost::Message;

fn main() -> ExitCode {
    // The built-in runtime executes this program again for what must not happen in a shim.
    if let Some(code) = gantry_runtime::builtin::run_if_asked() {
        std::process::exit(code);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A daemon shows what a shim says as it ends.
            eprintln!("containerd-shim-runc-v2: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse(std::env::args_os().skip(1))?;
    match arguments.command {
        Command::Version => {
            let name = std::env::args().next().unwrap_or_default();
            print(format!("{name}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION")).as_bytes())
        }
        Command::Info => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let info = runtime.block_on(info::info(&input()?))?;
            print(&info.encode_to_vec())
        }
        Command::Start => {
            arguments.check_names()?;
            let told = Told::new(&arguments, &input()?, |name| std::env::var(name).ok());
            let program = std::env::current_exe().context("find this program")?;
            let address = start::start(&program, &arguments, &told)?;
            print(&told.answer(&address))
        }
        Command::Delete => {
            arguments.check_names()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let deleted = runtime.block_on(cleanup::delete(&arguments))?;
            print(&deleted.encode_to_vec())
        }
        Command::Serve => {
            arguments.check_names()?;
            serve::serve(&arguments)
        }
    }
}

/// What the daemon wrote; it closes its end.
fn input() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    std::io::stdin().take(MAX_INPUT_BYTES).read_to_end(&mut input).context("read standard input")?;
    Ok(input)
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).context("write standard output")
}
