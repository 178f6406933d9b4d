//! What opens a stream, and what answers that.

use gantry_api::Any;
use gantry_api::containerd::services::streaming::v1::StreamInit;
use gantry_core::{Error, Result};
use prost::Message as _;

const INIT: &str = "containerd.services.streaming.v1.StreamInit";
/// Source: observed: the first answer, once the stream is known, is an empty message.
const EMPTY: &str = "google.protobuf.Empty";

pub(super) fn init_to_proto(name: &str) -> Any {
    let init = StreamInit { id: name.to_owned() };
    Any { type_url: INIT.to_owned(), value: init.encode_to_vec() }
}

/// The name in the message that opens a stream.
pub(super) fn name_from_proto(any: &Any) -> Result<String> {
    // With or without a host before the type's name, as in every Any.
    if any.type_url.rsplit('/').next() != Some(INIT) {
        // Source: observed code of containerd.
        return Err(Error::unknown(format!("a stream begins with a {INIT:?}, not {:?}", any.type_url)));
    }
    let init = StreamInit::decode(any.value.as_slice());
    init.map(|init| init.id).map_err(|error| Error::unknown(format!("decode {INIT}: {error}")))
}

pub(super) fn ready() -> Any {
    Any { type_url: EMPTY.to_owned(), value: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_wire_and_other_types_do_not() {
        assert_eq!(name_from_proto(&init_to_proto("a/b c")).unwrap(), "a/b c");
        let hosted = Any { type_url: format!("type.googleapis.com/{INIT}"), ..init_to_proto("x") };
        assert_eq!(name_from_proto(&hosted).unwrap(), "x");
        for bad in [ready(), Any::default(), Any { value: vec![0xff], ..init_to_proto("x") }] {
            assert_eq!(name_from_proto(&bad).unwrap_err().kind(), gantry_core::ErrorKind::Unknown);
        }
    }
}
