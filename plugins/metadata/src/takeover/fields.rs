//! The values in containerd's buckets: texts, numbers, times, payloads, maps.
//!
//! A value that is not what it must be is `InvalidArgument`: that record is damaged, and the file as such is not.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gantry_bolt::{Bucket, Item};
use gantry_core::time::{GO_ZERO_SECONDS, from_parts};
use gantry_core::{Any, Error, Result};
use prost::Message as _;

pub(super) fn malformed(what: impl Into<String>) -> Error {
    Error::invalid_argument(what.into())
}

pub(super) fn text(bytes: Vec<u8>, what: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| malformed(format!("{what} is no text")))
}

/// The text of `key`, or an empty one.
pub(super) fn text_at(bucket: &Bucket<'_>, key: &str) -> Result<String> {
    text(bucket.get(key)?.unwrap_or_default(), key)
}

/// Keys and values of the bucket `key`.
pub(super) fn map_at(bucket: &Bucket<'_>, key: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let Some(map) = bucket.bucket(key)? else { return Ok(found) };
    for entry in map.entries() {
        if let (name, Item::Value(value)) = entry? {
            found.insert(text(name, key)?, text(value, key)?);
        }
    }
    Ok(found)
}

/// Names of what is in the bucket `key`, values or not.
pub(super) fn names_at(bucket: &Bucket<'_>, key: &str) -> Result<Vec<String>> {
    let Some(inner) = bucket.bucket(key)? else { return Ok(Vec::new()) };
    inner.entries().map(|entry| text(entry?.0, key)).collect()
}

/// Buckets within `bucket`, by name.
pub(super) fn buckets<'d>(bucket: &Bucket<'d>) -> impl Iterator<Item = Result<(Vec<u8>, Bucket<'d>)>> {
    bucket.entries().filter_map(|entry| match entry {
        Ok((name, Item::Bucket(inner))) => Some(Ok((name, inner))),
        Ok((_, Item::Value(_))) => None,
        Err(error) => Some(Err(error)),
    })
}

/// An unsigned number of variable length. Source: protocol buffers' varint, which Go's `encoding/binary` writes.
pub(super) fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate() {
        let part = u64::from(byte & 0x7f);
        let shift = u32::try_from(index * 7).ok()?;
        let shifted = part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        value |= shifted;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A signed number of variable length: as an unsigned one, with the sign in its lowest bit.
pub(super) fn signed(bytes: &[u8]) -> Option<i64> {
    let value = unsigned(bytes)?;
    let half = (value >> 1).cast_signed();
    Some(if value & 1 == 0 { half } else { !half })
}

/// The signed number of `key`.
pub(super) fn number_at(bucket: &Bucket<'_>, key: &str) -> Result<i64> {
    let bytes = bucket.get(key)?.ok_or_else(|| malformed(format!("{key} is missing")))?;
    signed(&bytes).ok_or_else(|| malformed(format!("{key} is no number")))
}

/// A time as Go writes it in binary: version, seconds since the year 1, nanoseconds, minutes of offset (and seconds, in
/// version 2). The offset is where it was shown, and changes nothing.
///
/// Source: the documentation of Go's `time.Time.MarshalBinary`; observed values.
pub(super) fn time(bytes: &[u8]) -> Option<SystemTime> {
    let (version, rest) = bytes.split_first()?;
    if !matches!((version, rest.len()), (1, 14) | (2, 15)) {
        return None;
    }
    let seconds = i64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
    let nanos = i32::from_be_bytes(rest.get(8..12)?.try_into().ok()?);
    if !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    from_parts(seconds.checked_add(GO_ZERO_SECONDS)?, nanos)
}

/// The time of `key`; Go's zero time if there is none, as containerd reads it.
pub(super) fn time_at(bucket: &Bucket<'_>, key: &str) -> Result<SystemTime> {
    match bucket.get(key)? {
        Some(bytes) => time(&bytes).ok_or_else(|| malformed(format!("{key} is no time"))),
        None => from_parts(GO_ZERO_SECONDS, 0).ok_or_else(|| Error::internal("Go's zero time")),
    }
}

pub(super) fn any(bytes: &[u8], what: &str) -> Result<Any> {
    let any = prost_types::Any::decode(bytes).map_err(|error| malformed(format!("{what}: {error}")))?;
    Ok(Any::new(any.type_url, any.value))
}

/// The payload of `key`.
pub(super) fn any_at(bucket: &Bucket<'_>, key: &str) -> Result<Option<Any>> {
    bucket.get(key)?.map(|bytes| any(&bytes, key)).transpose()
}

/// The payloads in the bucket `extensions`.
pub(super) fn extensions(bucket: &Bucket<'_>) -> Result<BTreeMap<String, Any>> {
    let mut found = BTreeMap::new();
    let Some(inner) = bucket.bucket("extensions")? else { return Ok(found) };
    for entry in inner.entries() {
        if let (name, Item::Value(value)) = entry? {
            found.insert(text(name, "extension")?, any(&value, "extension")?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (bytes, unsigned_value, signed_value) in [
            (&[0_u8][..], 0, 0),
            (&[6], 6, 3),
            (&[5], 5, -3),
            (&[0xac, 0x02], 300, 150),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], u64::MAX, i64::MIN),
        ] {
            assert_eq!((unsigned(bytes), signed(bytes)), (Some(unsigned_value), Some(signed_value)));
        }
        for bad in [&[][..], &[0x80], &[0xff; 10], &[0xff; 40], &[0x80; 9]] {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_are_gos() {
        let at = |seconds: i64, nanos: i32, offset: i16| {
            let mut bytes = vec![1];
            bytes.extend(seconds.to_be_bytes());
            bytes.extend(nanos.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
            bytes
        };
        // 1970-01-01T00:00:01.000000005Z, shown in UTC (-1) and two hours east of it.
        let second = UNIX_EPOCH + Duration::new(1, 5);
        assert_eq!(time(&at(62_135_596_801, 5, -1)), Some(second));
        assert_eq!(time(&at(62_135_596_801, 5, 120)), Some(second));
        assert_eq!(time(&at(0, 0, -1)), from_parts(GO_ZERO_SECONDS, 0));
        for bad in
            [at(0, -1, 0), at(0, 1_000_000_000, 0), at(i64::MAX, 0, 0)[..14].to_vec(), vec![], vec![9; 15]]
        {
            assert_eq!(time(&bad), None);
        }
    }
}
