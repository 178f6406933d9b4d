//! Operations, made up at random.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Which namespace.
    pub(super) space: u8,
    /// The lease that the call names; it may not exist.
    pub(super) lease: Option<u8>,
    pub(super) verb: Verb,
}

/// Labels, each the number of one that `labels.rs` knows.
pub(super) type LabelChoice = Vec<u8>;

/// Paths of a mask, each the number of one that the noun knows.
pub(super) type MaskChoice = Vec<u8>;

/// A name of a noun by its number.
pub(super) type Name = u8;

#[derive(Clone, Debug)]
pub(super) enum Verb {
    CreateNamespace(LabelChoice),
    UpdateNamespace(LabelChoice, MaskChoice),
    DeleteNamespace,
    CreateContainer(ContainerChoice),
    UpdateContainer(ContainerChoice, MaskChoice),
    DeleteContainer(Name),
    CreateImage(ImageChoice),
    UpdateImage(ImageChoice, MaskChoice),
    DeleteImage {
        name: Name,
        if_target: Option<Name>,
        sync: bool,
    },
    OpenWriter {
        reference: Name,
        expected: Option<Name>,
        total: u8,
    },
    Write {
        reference: Name,
        data: u8,
    },
    Truncate(Name),
    Commit {
        reference: Name,
        expected: Option<Name>,
        total: u8,
        labels: LabelChoice,
    },
    DropWriter(Name),
    Abort(Name),
    UpdateContent {
        digest: Name,
        labels: LabelChoice,
        mask: MaskChoice,
    },
    DeleteContent(Name),
    CreateLease {
        id: Name,
        labels: LabelChoice,
    },
    DeleteLease {
        id: Name,
        sync: bool,
    },
    AddResource {
        id: Name,
        resource: Resource,
    },
    DeleteResource {
        id: Name,
        resource: Resource,
    },
    MakeSnapshot {
        view: bool,
        key: Name,
        parent: Option<Name>,
        labels: LabelChoice,
    },
    CommitSnapshot {
        name: Name,
        key: Name,
        labels: LabelChoice,
        rebase: Option<Name>,
    },
    UpdateSnapshot {
        key: Name,
        labels: LabelChoice,
        mask: MaskChoice,
    },
    RemoveSnapshot(Name),
    CreateSandbox {
        id: Name,
        runtime: u8,
        labels: LabelChoice,
        extension: bool,
    },
    UpdateSandbox {
        id: Name,
        runtime: u8,
        labels: LabelChoice,
        extension: bool,
        mask: MaskChoice,
    },
    DeleteSandbox(Name),
    /// Looks at one record of each noun, and at lists with a filter.
    Look {
        name: Name,
        filter: u8,
    },
    Collect,
    Reopen,
}

#[derive(Clone, Debug)]
pub(super) struct ContainerChoice {
    pub(super) id: Name,
    /// 0 is none at all.
    pub(super) runtime: u8,
    pub(super) snapshotter: bool,
    pub(super) snapshot: Option<Name>,
    pub(super) labels: LabelChoice,
    pub(super) spec: bool,
    pub(super) extension: bool,
}

#[derive(Clone, Debug)]
pub(super) struct ImageChoice {
    pub(super) name: Name,
    pub(super) digest: Name,
    /// 0 is refused.
    pub(super) size: u8,
    pub(super) labels: LabelChoice,
    pub(super) annotations: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// The number of a type that `records.rs` knows.
    pub(super) kind: u8,
    pub(super) name: Name,
}

/// At most `most` operations.
pub(super) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let lease = option::weighted(0.35, 0..2u8);
    let step = (0..2u8, lease, verb()).prop_map(|(space, lease, verb)| Step { space, lease, verb });
    vec(step, 1..most)
}

fn name() -> impl Strategy<Value = Name> {
    0..3u8
}

/// Some value more often than others: what is right.
fn mostly(right: u8, others: u8) -> impl Strategy<Value = u8> {
    prop_oneof![9 => Just(right), 1 => 0..others]
}

fn labels() -> impl Strategy<Value = LabelChoice> {
    prop_oneof![2 => Just(Vec::new()), 3 => vec(any::<u8>(), 1..4)]
}

fn mask() -> impl Strategy<Value = MaskChoice> {
    prop_oneof![1 => Just(Vec::new()), 2 => vec(any::<u8>(), 1..4)]
}

fn container() -> impl Strategy<Value = ContainerChoice> {
    let parts = (
        name(),
        mostly(1, 3),
        proptest::bool::weighted(0.9),
        option::of(name()),
        labels(),
        any::<bool>(),
        any::<bool>(),
    );
    parts.prop_map(|(id, runtime, snapshotter, snapshot, labels, spec, extension)| ContainerChoice {
        id,
        runtime,
        snapshotter,
        snapshot,
        labels,
        spec,
        extension,
    })
}

fn image() -> impl Strategy<Value = ImageChoice> {
    (name(), digest(), mostly(1, 2), labels(), vec(0..3u8, 0..3)).prop_map(
        |(name, digest, size, labels, annotations)| ImageChoice { name, digest, size, labels, annotations },
    )
}

fn digest() -> impl Strategy<Value = Name> {
    0..5u8
}

fn resource() -> impl Strategy<Value = Resource> {
    let kind = prop_oneof![8 => 0..4u8, 1 => 4..10u8];
    (kind, 0..6u8).prop_map(|(kind, name)| Resource { kind, name })
}

fn verb() -> impl Strategy<Value = Verb> {
    let records = prop_oneof![
        1 => labels().prop_map(Verb::CreateNamespace),
        1 => (labels(), mask()).prop_map(|(labels, mask)| Verb::UpdateNamespace(labels, mask)),
        1 => Just(Verb::DeleteNamespace),
        4 => container().prop_map(Verb::CreateContainer),
        2 => (container(), mask()).prop_map(|(changed, mask)| Verb::UpdateContainer(changed, mask)),
        1 => name().prop_map(Verb::DeleteContainer),
        4 => image().prop_map(Verb::CreateImage),
        2 => (image(), mask()).prop_map(|(changed, mask)| Verb::UpdateImage(changed, mask)),
        2 => (name(), option::weighted(0.3, digest()), any::<bool>())
            .prop_map(|(name, if_target, sync)| Verb::DeleteImage { name, if_target, sync }),
        2 => (name(), mostly(1, 3), labels(), any::<bool>())
            .prop_map(|(id, runtime, labels, extension)| Verb::CreateSandbox { id, runtime, labels, extension }),
        2 => (name(), mostly(1, 3), labels(), any::<bool>(), mask()).prop_map(
            |(id, runtime, labels, extension, mask)| Verb::UpdateSandbox { id, runtime, labels, extension, mask }
        ),
        1 => name().prop_map(Verb::DeleteSandbox),
    ];
    let expected = || option::weighted(0.4, digest());
    let content = prop_oneof![
        4 => (name(), expected(), mostly(0, 3)).prop_map(|(reference, expected, total)| Verb::OpenWriter { reference, expected, total }),
        5 => (name(), 0..3u8).prop_map(|(reference, data)| Verb::Write { reference, data }),
        1 => name().prop_map(Verb::Truncate),
        5 => (name(), option::weighted(0.2, digest()), mostly(0, 3), labels())
            .prop_map(|(reference, expected, total, labels)| Verb::Commit { reference, expected, total, labels }),
        1 => name().prop_map(Verb::DropWriter),
        1 => name().prop_map(Verb::Abort),
        2 => (digest(), labels(), mask()).prop_map(|(digest, labels, mask)| Verb::UpdateContent { digest, labels, mask }),
        1 => digest().prop_map(Verb::DeleteContent),
    ];
    let leases = prop_oneof![
        3 => (0..2u8, labels()).prop_map(|(id, labels)| Verb::CreateLease { id, labels }),
        1 => (0..2u8, any::<bool>()).prop_map(|(id, sync)| Verb::DeleteLease { id, sync }),
        3 => (0..2u8, resource()).prop_map(|(id, resource)| Verb::AddResource { id, resource }),
        1 => (0..2u8, resource()).prop_map(|(id, resource)| Verb::DeleteResource { id, resource }),
    ];
    let snapshots = prop_oneof![
        6 => (proptest::bool::weighted(0.2), 0..5u8, option::of(0..5u8), labels())
            .prop_map(|(view, key, parent, labels)| Verb::MakeSnapshot { view, key, parent, labels }),
        5 => (0..5u8, 0..5u8, labels(), option::weighted(0.2, 0..5u8))
            .prop_map(|(name, key, labels, rebase)| Verb::CommitSnapshot { name, key, labels, rebase }),
        2 => (0..5u8, labels(), mask()).prop_map(|(key, labels, mask)| Verb::UpdateSnapshot { key, labels, mask }),
        2 => (0..5u8).prop_map(Verb::RemoveSnapshot),
    ];
    prop_oneof![
        5 => records,
        6 => content,
        3 => leases,
        5 => snapshots,
        2 => (0..5u8, 0..7u8).prop_map(|(name, filter)| Verb::Look { name, filter }),
        2 => Just(Verb::Collect),
        1 => Just(Verb::Reopen),
    ]
}
