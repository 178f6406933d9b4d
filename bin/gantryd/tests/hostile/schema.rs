//! Every method and field of the wire, from the compiled descriptors.

use std::collections::BTreeMap;

use gantry_api::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// How deep in a message fields are played with.
const DEPTH: usize = 4;

/// A method of a service.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// `/package.Service/Method`.
    pub(crate) path: String,
    /// Its service, with the package.
    pub(crate) service: String,
    /// The full name of what it is asked with.
    pub(crate) input: String,
}

/// A field of a message.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) kind: Type,
    pub(crate) repeated: bool,
    /// What a message field holds.
    pub(crate) message: String,
    /// Whether that is the pair of a map.
    pub(crate) map: bool,
}

/// All of it.
pub(crate) struct Schema {
    pub(crate) methods: Vec<Method>,
    messages: BTreeMap<String, Vec<Field>>,
}

impl Schema {
    pub(crate) fn read() -> Schema {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build encoded them");
        let mut schema = Schema { methods: Vec::new(), messages: BTreeMap::new() };
        let mut maps = Vec::new();
        for file in &set.file {
            for message in &file.message_type {
                schema.add(file.package(), message, &mut maps);
            }
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                schema.methods.extend(service.method.iter().map(|method| Method {
                    path: format!("/{service_name}/{}", method.name()),
                    service: service_name.clone(),
                    input: method.input_type().trim_start_matches('.').to_owned(),
                }));
            }
        }
        for field in schema.messages.values_mut().flatten() {
            field.map = maps.contains(&field.message);
        }
        schema
    }

    fn add(&mut self, outer: &str, message: &DescriptorProto, maps: &mut Vec<String>) {
        let name = format!("{outer}.{}", message.name());
        if message.options.as_ref().is_some_and(|options| options.map_entry()) {
            maps.push(name.clone());
        }
        for nested in &message.nested_type {
            self.add(&name, nested, maps);
        }
        self.messages.insert(name, message.field.iter().map(field).collect());
    }

    /// The fields of a message.
    pub(crate) fn fields(&self, message: &str) -> &[Field] {
        self.messages.get(message).unwrap_or_else(|| panic!("no message {message}"))
    }

    /// Every way from the message to a field in it or in what it holds.
    pub(crate) fn places(&self, message: &str) -> Vec<Vec<Field>> {
        let mut found = Vec::new();
        self.walk(message, &mut Vec::new(), &mut found);
        found
    }

    fn walk(&self, message: &str, way: &mut Vec<Field>, found: &mut Vec<Vec<Field>>) {
        for field in self.fields(message) {
            way.push(field.clone());
            found.push(way.clone());
            if field.kind == Type::Message && way.len() < DEPTH {
                self.walk(&field.message, way, found);
            }
            way.pop();
        }
    }

    /// The message with every field set to something usual.
    pub(crate) fn usual(&self, message: &str) -> Vec<u8> {
        self.with(message, &[], &[])
    }

    /// The same with `instead` (a whole field, or several, or nothing) where the way leads.
    pub(crate) fn with(&self, message: &str, way: &[Field], instead: &[u8]) -> Vec<u8> {
        self.encode(message, way, instead, DEPTH)
    }

    fn encode(&self, message: &str, way: &[Field], instead: &[u8], depth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for field in self.fields(message) {
            match way {
                [last] if last.number == field.number => out.extend_from_slice(instead),
                [first, rest @ ..] if first.number == field.number => {
                    let inner = self.encode(&field.message, rest, instead, depth.saturating_sub(1));
                    length_delimited(field.number, &inner, &mut out);
                }
                _ => self.usual_field(field, depth, &mut out),
            }
        }
        out
    }

    /// Only what is on the way, with `instead` at its end.
    pub(crate) fn only(&self, way: &[Field], instead: &[u8]) -> Vec<u8> {
        let mut inner = instead.to_vec();
        for field in way.iter().rev().skip(1) {
            let mut outer = Vec::new();
            length_delimited(field.number, &inner, &mut outer);
            inner = outer;
        }
        inner
    }

    fn usual_field(&self, field: &Field, depth: usize, out: &mut Vec<u8>) {
        match field.kind {
            Type::String => length_delimited(field.number, usual_text(&field.name).as_bytes(), out),
            Type::Bytes => length_delimited(field.number, b"x", out),
            Type::Message if depth == 0 => {}
            Type::Message => {
                let inner = self.encode(&field.message, &[], &[], depth - 1);
                length_delimited(field.number, &inner, out);
            }
            _ => number(field, 1, out),
        }
    }
}

/// A text that gets past what only looks at its form.
fn usual_text(field: &str) -> String {
    match field {
        "digest" | "expected" => format!("sha256:{}", "0".repeat(64)),
        "snapshotter" => "native".to_owned(),
        "sandboxer" => "podsandbox".to_owned(),
        "topic" => "/a".to_owned(),
        "filters" => "id==a".to_owned(),
        "paths" | "fields" => "labels".to_owned(),
        "stdin" | "stdout" | "stderr" => String::new(),
        "bundle" | "path" | "source" | "target" | "checkpoint" => "/nonexistent".to_owned(),
        _ => "a".to_owned(),
    }
}

fn field(field: &FieldDescriptorProto) -> Field {
    Field {
        name: field.name().to_owned(),
        number: u32::try_from(field.number()).expect("field numbers are positive"),
        kind: field.r#type(),
        repeated: field.label() == Label::Repeated,
        message: field.type_name().trim_start_matches('.').to_owned(),
        map: false,
    }
}

/// A field of length-delimited bytes.
pub(crate) fn length_delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A field that is a number, as its type has it on the wire.
pub(crate) fn number(field: &Field, value: u64, out: &mut Vec<u8>) {
    match field.kind {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => {
            encode_key(field.number, WireType::SixtyFourBit, out);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Type::Float | Type::Fixed32 | Type::Sfixed32 => {
            encode_key(field.number, WireType::ThirtyTwoBit, out);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            encode_key(field.number, WireType::Varint, out);
            encode_varint(value, out);
        }
    }
}
