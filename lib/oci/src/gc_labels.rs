//! The labels by which a pull tells the collector what a document refers to.

use std::collections::HashMap;

use gantry_core::Labels;
use gantry_core::wire_names::LABEL_GC_REF_CONTENT;

use crate::manifest::ChildDescriptor;
use crate::media_types;

/// Annotation of a child that was found as a referrer of another manifest.
///
/// Source: features.md E48.
pub const ANNOTATION_MANIFEST_SUBJECT: &str = "io.containerd.manifest.subject";

/// What stands behind the common prefix for one child, before a number is added.
fn suffix(child: &ChildDescriptor) -> &'static str {
    let media_type = child.descriptor.media_type.as_str();
    if child.descriptor.annotations.contains_key(ANNOTATION_MANIFEST_SUBJECT) {
        ".referrer.sha256."
    } else if media_types::is_known_config(media_type) {
        ".config"
    } else if media_types::is_manifest(media_type) {
        ".m."
    } else if media_types::is_layer(media_type) {
        ".l."
    } else {
        "."
    }
}

/// The labels for a document with `children`, all of which must be given, in their order.
///
/// Source: containerd's `ChildGCLabels` and how it numbers them: keys that end in a dot always get a number, others
/// from the second on, and referrers the first twelve digits of their digest.
pub fn child_labels(children: &[ChildDescriptor]) -> Labels {
    labels_where(children, |_| true)
}

/// The same without layers, for when those are thrown away after unpacking.
pub fn child_labels_without_layers(children: &[ChildDescriptor]) -> Labels {
    labels_where(children, |child| !media_types::is_layer(&child.descriptor.media_type))
}

fn labels_where(children: &[ChildDescriptor], keep: impl Fn(&ChildDescriptor) -> bool) -> Labels {
    let mut counts: HashMap<&'static str, usize> = HashMap::new();
    let mut labels = Labels::new();
    for child in children.iter().filter(|child| keep(child)) {
        let suffix = suffix(child);
        let count = counts.entry(suffix).or_default();
        let number = *count;
        *count += 1;
        let digest = &child.descriptor.digest;
        let key = if suffix.ends_with(".sha256.") {
            format!("{LABEL_GC_REF_CONTENT}{suffix}{}", &digest.hex()[..12])
        } else if number > 0 || suffix.ends_with('.') {
            format!("{LABEL_GC_REF_CONTENT}{suffix}{number}")
        } else {
            format!("{LABEL_GC_REF_CONTENT}{suffix}")
        };
        labels.insert(key, digest.to_string());
    }
    labels
}

#[cfg(test)]
mod tests {
    use gantry_core::{Descriptor, Digest};

    use super::*;

    fn child(media_type: &str, fill: char) -> ChildDescriptor {
        let digest = Digest::parse(format!("sha256:{}", fill.to_string().repeat(64))).unwrap();
        ChildDescriptor::new(Descriptor::new(media_type, digest, 1))
    }

    #[test]
    fn labels_are_named_and_numbered_as_containerd_does() {
        let mut referrer = child(media_types::OCI_MANIFEST, 'f');
        referrer.descriptor.annotations.insert(ANNOTATION_MANIFEST_SUBJECT.into(), "x".into());
        let children = [
            child(media_types::OCI_CONFIG, 'c'),
            child(media_types::OCI_LAYER_GZIP, '1'),
            child(media_types::DOCKER_LAYER_GZIP, '2'),
            child(media_types::OCI_MANIFEST, 'a'),
            child(media_types::OCI_INDEX, 'b'),
            child(media_types::IN_TOTO, 'd'),
            referrer,
        ];
        let labels = child_labels(&children);
        let keys: Vec<_> =
            labels.keys().map(|key| key.strip_prefix("containerd.io/gc.ref.content").unwrap()).collect();
        assert_eq!(keys, [".0", ".1", ".config", ".l.0", ".l.1", ".m.0", ".referrer.sha256.ffffffffffff"]);
        assert_eq!(labels["containerd.io/gc.ref.content.l.1"], children[2].descriptor.digest.as_str());
        assert_eq!(child_labels_without_layers(&children).len(), 5);
    }
}
