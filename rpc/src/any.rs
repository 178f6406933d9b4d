//! Payloads: core's `Any` and the wire's.

use gantry_core::Any;

pub(crate) fn from_proto(any: gantry_api::Any) -> Any {
    Any::new(any.type_url, any.value)
}

pub(crate) fn to_proto(any: Any) -> gantry_api::Any {
    gantry_api::Any { type_url: any.type_url, value: any.value.into() }
}
