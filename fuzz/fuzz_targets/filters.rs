//! Filters: any text parses or is refused; a list matches where one of its filters does.
#![no_main]

use gantry_testkit::properties::filters;

libfuzzer_sys::fuzz_target!(|input: &[u8]| filters::any_bytes(input));
