//! Field masks.

use gantry_core::field_mask::FieldMask;

/// No mask and an empty one mean the same.
pub(crate) fn from_proto(mask: Option<gantry_api::FieldMask>) -> FieldMask {
    FieldMask::new(mask.map(|mask| mask.paths).unwrap_or_default())
}

pub(crate) fn to_proto(mask: &FieldMask) -> Option<gantry_api::FieldMask> {
    (!mask.is_empty()).then(|| gantry_api::FieldMask { paths: mask.paths.clone() })
}
