//! A program that is only ever the built-in runtime's helper.

fn main() {
    std::process::exit(gantry_runtime::builtin::run_if_asked().unwrap_or(2));
}
