//! Extended header records: `length key=value\n`.
//!
//! Source: POSIX.1-2001, pax, "pax Extended Header".

use gantry_core::Result;

use crate::entry::Timestamp;
use crate::failure::malformed;

/// What extended attributes are called in records. Source: star's manual, as containerd and Docker write them.
pub(crate) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// The records of one extended header in their order.
pub(crate) fn parse(mut data: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let wrong = || malformed("archive/tar: invalid pax record");
    let mut records = Vec::new();
    while !data.is_empty() {
        let blank = data.iter().take(8).position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize = std::str::from_utf8(&data[..blank])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(wrong)?;
        if length <= blank + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &data[blank + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err(wrong());
        }
        if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") && value.contains(&0) {
            return Err(wrong());
        }
        records.push((key.to_vec(), value.to_vec()));
        data = &data[length..];
    }
    Ok(records)
}

/// One record; its length counts its own digits.
pub(crate) fn encode(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length += 1;
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A decimal number that is not negative.
pub(crate) fn decimal(value: &[u8]) -> Result<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    number
        .filter(|number| digits && *number <= i64::MAX as u64)
        .ok_or_else(|| malformed("archive/tar: invalid number in pax record"))
}

/// Seconds since the epoch with a fraction of any length; cut to nanoseconds.
pub(crate) fn timestamp(value: &[u8]) -> Result<Timestamp> {
    let wrong = || malformed("archive/tar: invalid time in pax record");
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let mut nanos = 0u32;
    for index in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.as_bytes().get(index).map_or(0, |digit| digit - b'0'));
    }
    if !whole.starts_with('-') || nanos == 0 {
        return Ok(Timestamp { seconds, nanos });
    }
    // -1.25 is three quarters after -2.
    Ok(Timestamp { seconds: seconds.checked_sub(1).ok_or_else(wrong)?, nanos: 1_000_000_000 - nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        let mut data = Vec::new();
        for length in [0, 1, 85, 86, 87, 88, 89, 90, 980, 990, 5000] {
            encode(b"path", &vec![b'x'; length], &mut data);
        }
        let lengths: Vec<usize> = parse(&data).unwrap().iter().map(|(_, value)| value.len()).collect();
        assert_eq!(lengths, [0, 1, 85, 86, 87, 88, 89, 90, 980, 990, 5000]);
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            "x",
            "5 a=b",
            "0 \n",
            "99 path=x\n",
            "7 path=\n",
            "6 abc\n",
            "10 path=\0\n\n",
            "18446744073709551616 a=b\n",
            "5 =b\n",
        ] {
            parse(bad.as_bytes()).expect_err(bad);
        }
    }

    #[test]
    fn times_before_the_epoch_count_their_fraction_forwards() {
        assert_eq!(timestamp(b"1.5").unwrap(), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(b"-1.25").unwrap(), Timestamp { seconds: -2, nanos: 750_000_000 });
        assert_eq!(timestamp(b"7.0000000019").unwrap(), Timestamp { seconds: 7, nanos: 1 });
        assert_eq!(timestamp(b"-0.5").unwrap(), Timestamp { seconds: -1, nanos: 500_000_000 });
        for bad in [&b""[..], b"x", b"1.x", b"1.-1"] {
            timestamp(bad).unwrap_err();
        }
    }
}
