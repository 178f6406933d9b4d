//! Field masks: any mask changes what it names and nothing else.
#![no_main]

use gantry_testkit::properties::field_masks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| field_masks::any_bytes(input));
