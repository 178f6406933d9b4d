//! The properties, of what `proptest` makes up. `PROPTEST_CASES` sets how many cases; the fuzzer goes further.

use gantry_core::Labels;
use gantry_testkit::properties::filters::{Asks, Object, Selector};
use gantry_testkit::properties::{field_masks, filters, identifiers};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Names few enough that they meet, and any other text.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab]", 1 => "[a-c][._/-][a-c]", 1 => any::<String>()]
}

fn path() -> impl Strategy<Value = Vec<String>> {
    vec(name(), 1..3)
}

fn object() -> impl Strategy<Value = Object> {
    vec((path(), name()), 0..4).prop_map(Object)
}

fn selector() -> impl Strategy<Value = Selector> {
    let asks = prop_oneof![
        Just(Asks::Presence),
        name().prop_map(Asks::Equal),
        name().prop_map(Asks::NotEqual),
        name().prop_map(Asks::Contains),
    ];
    (path(), asks).prop_map(|(path, asks)| Selector { path, asks })
}

/// Near filters: made of what filters are made of.
fn near_filter() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab]",
        1 => Just("==".to_owned()),
        1 => Just("!=".to_owned()),
        1 => Just("~=".to_owned()),
        1 => "[.,\"/|\\\\ ;'=]",
        1 => "\\\\[xuU0-9a-f]{1,5}",
        1 => any::<String>(),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof![4 => "[a-c]{0,2}", 1 => Just("x".repeat(4096))];
    btree_map(name(), value, 0..4)
}

fn mask_path() -> impl Strategy<Value = String> {
    let any_label = name().prop_map(|key| format!("labels.{key}"));
    prop_oneof![4 => any_label, 2 => Just("labels".to_owned()), 1 => name()]
}

fn near_identifier() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Za-z0-9._-]{0,80}",
        1 => "[a-z]{1,20}([._-][a-z]{1,20}){0,4}",
        1 => "(/[a-z]{1,30}([._-][a-z]{1,20}){0,3}){1,3}",
        1 => "sha(256|384|512|1):[0-9a-fA-F]{63,65}",
        1 => "sha512:[0-9a-f]{128}",
        2 => any::<String>(),
    ]
}

proptest! {
    #[test]
    fn any_list_of_filters_is_parsed_or_refused(
        list in vec(prop_oneof![near_filter(), any::<String>()], 0..4),
        object in object(),
    ) {
        filters::any_list(&list, &object);
    }

    #[test]
    fn written_filters_match_what_they_say(list in vec(vec(selector(), 1..4), 0..3), object in object()) {
        filters::written_list(&list, &object);
    }

    #[test]
    fn a_mask_changes_what_it_names(
        paths in vec(mask_path(), 0..6),
        stored in labels().prop_map(|mut labels| { labels.retain(|key, value| !key.is_empty() && key.len() + value.len() <= 4096 && !value.is_empty()); labels }),
        given in labels(),
    ) {
        field_masks::any_mask(&paths, &stored, &given);
    }

    #[test]
    fn identifiers_take_what_their_rules_allow(text in near_identifier()) {
        identifiers::any_text(&text);
    }

    #[test]
    fn any_bytes_will_do(bytes in vec(any::<u8>(), 0..200)) {
        filters::any_bytes(&bytes);
        field_masks::any_bytes(&bytes);
        identifiers::any_bytes(&bytes);
    }
}
