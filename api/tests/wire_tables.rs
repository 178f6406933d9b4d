//! Holds the compiled descriptors to the tables of wire facts, field by field, both ways.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Every line of a table or descriptor, under its service, message or enum.
type Facts = BTreeMap<String, BTreeSet<String>>;

const TABLES: [&str; 4] = [
    include_str!("data/containerd.txt"),
    include_str!("data/cgroup1.txt"),
    include_str!("data/cgroup2.txt"),
    include_str!("data/ttrpc.txt"),
];

fn facts_of_tables() -> Facts {
    let mut facts = Facts::new();
    for table in TABLES {
        let mut current = String::new();
        for line in table.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if line.starts_with(char::is_whitespace) {
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                facts.get_mut(&current).expect("a head line comes first").insert(line);
            } else {
                current = line.trim().to_owned();
                facts.entry(current.clone()).or_default();
            }
        }
    }
    facts
}

fn scalar(kind: Type) -> &'static str {
    match kind {
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Uint32 => "uint32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Group | Type::Message | Type::Enum => unreachable!("named types have a type name"),
    }
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.type_name() {
        "" => scalar(field.r#type()).to_owned(),
        name => name.trim_start_matches('.').to_owned(),
    }
}

fn message_facts(prefix: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{prefix}.{}", message.name());
    let entries: BTreeMap<String, &DescriptorProto> = message
        .nested_type
        .iter()
        .filter(|nested| nested.options.as_ref().is_some_and(|options| options.map_entry()))
        .map(|nested| (format!("{name}.{}", nested.name()), nested))
        .collect();
    let mut lines = BTreeSet::new();
    for field in &message.field {
        let mut kind = type_of(field);
        if let Some(entry) = entries.get(&kind) {
            kind = format!("map<{}, {}>", type_of(&entry.field[0]), type_of(&entry.field[1]));
        } else if field.label() == Label::Repeated {
            kind = format!("repeated {kind}");
        }
        if field.proto3_optional() {
            kind.push_str(" optional");
        }
        if field.options.as_ref().is_some_and(|options| options.deprecated()) {
            kind.push_str(" deprecated");
        }
        lines.insert(format!("{} {} {kind}", field.number(), field.name()));
    }
    for range in &message.reserved_range {
        lines.insert(format!("reserved {}..{}", range.start(), range.end() - 1));
    }
    facts.insert(format!("message {name}"), lines);
    for nested in message
        .nested_type
        .iter()
        .filter(|nested| !entries.contains_key(&format!("{name}.{}", nested.name())))
    {
        message_facts(&name, nested, facts);
    }
    for nested in &message.enum_type {
        enum_facts(&name, nested, facts);
    }
}

fn enum_facts(prefix: &str, values: &EnumDescriptorProto, facts: &mut Facts) {
    let lines = values.value.iter().map(|value| format!("{} {}", value.number(), value.name())).collect();
    facts.insert(format!("enum {prefix}.{}", values.name()), lines);
}

fn facts_of_descriptors() -> Facts {
    let set = FileDescriptorSet::decode(gantry_api::FILE_DESCRIPTOR_SET).expect("build.rs encoded it");
    let mut facts = Facts::new();
    for file in &set.file {
        let package = file.package();
        // The tables are of containerd's wire: neither of what it takes from others nor of what is only ours.
        if ["google.", "grpc.", "gantry."].iter().any(|other| package.starts_with(other)) {
            continue;
        }
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        for message in &file.message_type {
            message_facts(package, message, &mut facts);
        }
        for values in &file.enum_type {
            enum_facts(package, values, &mut facts);
        }
        for service in &file.service {
            let lines = service
                .method
                .iter()
                .map(|method| {
                    let stream = |yes: bool| if yes { "stream " } else { "" };
                    format!(
                        "{}({}{}) -> {}{}",
                        method.name(),
                        stream(method.client_streaming()),
                        method.input_type().trim_start_matches('.'),
                        stream(method.server_streaming()),
                        method.output_type().trim_start_matches('.'),
                    )
                })
                .collect();
            facts.insert(format!("service {package}.{}", service.name()), lines);
        }
    }
    facts
}

#[test]
fn compiled_descriptors_equal_the_wire_tables() {
    let (wanted, compiled) = (facts_of_tables(), facts_of_descriptors());
    assert!(wanted.len() > 250, "the tables were read: {}", wanted.len());
    for (name, lines) in &wanted {
        assert_eq!(Some(lines), compiled.get(name), "{name}");
    }
    let extra: Vec<_> = compiled.keys().filter(|name| !wanted.contains_key(*name)).collect();
    assert!(extra.is_empty(), "not in the tables: {extra:?}");
}
