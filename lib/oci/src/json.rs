//! Reading JSON from strangers: bounded, and as tolerant of `null` as the Go programs that write it.

use std::marker::PhantomData;

use gantry_core::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The largest manifest, index or image configuration that is read, in bytes.
///
/// Source: twice what containerd takes from a registry (`MaxManifestSize`), which is the limit that
/// registries themselves keep to.
pub const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// `null` reads as the default, as Go's decoder has it.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A struct that is written as an object. Without it a list of values in the fields' order would read as one too, and
/// mean something that no other reader sees.
#[derive(Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OnlyMaps<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMaps<T> {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OnlyMaps(PhantomData)).map(Object)
    }
}

/// Refuses what is longer than [`MAX_DOCUMENT_BYTES`].
pub(crate) fn check_size(what: &str, length: u64) -> Result<()> {
    if length > MAX_DOCUMENT_BYTES as u64 {
        return Err(Error::invalid_argument(format!(
            "{what} has {length} bytes, more than the {MAX_DOCUMENT_BYTES} that are read"
        )));
    }
    Ok(())
}

/// Decodes a document, which is an object.
pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    check_size(what, bytes.len() as u64)?;
    serde_json::from_slice::<Object<T>>(bytes).map(|object| object.0).map_err(|error| {
        // serde_json's text quotes at most one value of the document; keep that short too.
        let text: String = error.to_string().chars().take(300).collect();
        Error::invalid_argument(format!("decode {what}: {text}"))
    })
}
