//! Development commands: demo, test, check, layers, e2e, bench, vm.
#![forbid(unsafe_code)]
fn main() {}
