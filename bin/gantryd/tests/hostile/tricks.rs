//! What is put where a field should be.

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;

use crate::schema::{Field, length_delimited, number};

/// What is sent for one field.
pub(crate) struct Trick {
    pub(crate) name: &'static str,
    /// The encoded field, or fields, or nothing.
    pub(crate) bytes: Vec<u8>,
    /// Whether such a message does not parse, which is INTERNAL. Everything else must be answered otherwise.
    pub(crate) unparsable: bool,
}

/// How many elements a huge list has.
const MANY: usize = 100_000;

fn trick(name: &'static str, bytes: Vec<u8>) -> Trick {
    Trick { name, bytes, unparsable: false }
}

fn unparsable(name: &'static str, bytes: Vec<u8>) -> Trick {
    Trick { name, bytes, unparsable: true }
}

/// Everything that is tried on `field`.
pub(crate) fn tricks(field: &Field) -> Vec<Trick> {
    let delimited = |bytes: &[u8]| {
        let mut out = Vec::new();
        length_delimited(field.number, bytes, &mut out);
        out
    };
    let mut all = vec![trick("absent", Vec::new())];
    match field.kind {
        Type::String => {
            for (name, text) in [
                ("empty", String::new()),
                ("76 bytes", "x".repeat(76)),
                ("77 bytes", "x".repeat(77)),
                ("4096 bytes", "x".repeat(4096)),
                ("4097 bytes", "x".repeat(4097)),
                ("1 MiB", "x".repeat(1 << 20)),
                ("1 MiB of quotes", "\"\u{7f}".repeat(1 << 19)),
                ("a NUL", "a\0b".to_owned()),
                ("the way up", "../../../../etc".to_owned()),
                ("a newline", "a\nb".to_owned()),
                ("many dots", ".".repeat(5000)),
                ("an expression", "a~=/(((\\w{50}){50}){50}/".to_owned()),
            ] {
                all.push(trick(name, delimited(text.as_bytes())));
            }
            for (name, bytes) in [
                ("no UTF-8", b"\xff\xfe" as &[u8]),
                ("half of UTF-8", b"ab\xe2\x82"),
                ("a surrogate", b"\xed\xa0\x80"),
            ] {
                all.push(unparsable(name, delimited(bytes)));
            }
            all.push(unparsable("a number for a text", varint(field.number, 7)));
        }
        Type::Bytes => {
            let every: Vec<u8> = (0..=u8::MAX).collect();
            for (name, bytes) in
                [("empty", Vec::new()), ("every byte", every), ("1 MiB", vec![0xff; 1 << 20])]
            {
                all.push(trick(name, delimited(&bytes)));
            }
            all.push(unparsable("a number for bytes", varint(field.number, 7)));
        }
        Type::Message => {
            all.push(trick("hollow", delimited(b"")));
            all.push(trick("unknown fields", delimited(b"\xc2\x3e\x05later")));
            all.push(unparsable("garbage", delimited(b"\xff\xff\xff\xff\xff")));
            all.push(unparsable("a number for a message", varint(field.number, 7)));
            let mut nested = Vec::new();
            for _ in 0..MANY {
                encode_key(1000, WireType::StartGroup, &mut nested);
            }
            all.push(unparsable("groups in groups", delimited(&nested)));
        }
        _ => {
            for (name, value) in [
                ("0", 0),
                ("-1", u64::MAX),
                ("the least", i64::MIN.cast_unsigned()),
                ("the most", i64::MAX.cast_unsigned()),
                ("32 bits", u64::from(u32::MAX)),
                ("just above 31 bits", 1 << 31),
            ] {
                let mut bytes = Vec::new();
                number(field, value, &mut bytes);
                all.push(trick(name, bytes));
            }
            all.push(unparsable("a text for a number", text_for_a_number(field)));
        }
    }
    if field.repeated {
        all.push(trick("100,000 of it", many(field)));
    }
    all
}

fn varint(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(number, WireType::Varint, &mut out);
    encode_varint(value, &mut out);
    out
}

/// Numbers in a list may come packed, so that a text is one: it has to end in the middle of a number.
fn text_for_a_number(field: &Field) -> Vec<u8> {
    let mut out = Vec::new();
    length_delimited(field.number, b"\xff", &mut out);
    out
}

fn many(field: &Field) -> Vec<u8> {
    let mut out = Vec::new();
    for count in 0..MANY {
        match field.kind {
            Type::String | Type::Bytes => {
                length_delimited(field.number, count.to_string().as_bytes(), &mut out)
            }
            Type::Message if field.map => {
                let mut pair = Vec::new();
                length_delimited(1, count.to_string().as_bytes(), &mut pair);
                length_delimited(field.number, &pair, &mut out);
            }
            Type::Message => length_delimited(field.number, b"", &mut out),
            _ => number(field, count as u64, &mut out),
        }
    }
    out
}
