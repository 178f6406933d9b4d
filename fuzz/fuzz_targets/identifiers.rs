//! Identifiers: each kind takes what its rule allows.
#![no_main]

use gantry_testkit::properties::identifiers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| identifiers::any_bytes(input));
