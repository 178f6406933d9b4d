//! Properties: what holds for any input, however it was made.
//!
//! Each module has one noun's. Stable tests call them with what `proptest` makes up (`tests/properties.rs`), the targets of `fuzz/`
//! with what a fuzzer finds. A property that does not hold panics.

pub mod field_masks;
pub mod filters;
pub mod identifiers;

/// The text of an input that may be any bytes, in parts: they end with NUL.
pub(crate) fn parts(input: &[u8]) -> Vec<String> {
    input.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}
