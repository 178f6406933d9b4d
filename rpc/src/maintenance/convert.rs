//! Explanations, previews and findings.

use std::time::Duration;

use gantry_api::gantry::services::maintenance::v1 as pb;
use gantry_core::maintenance::check::{CheckEvent, CheckSummary, Finding, Outcome, Problem};
use gantry_core::maintenance::{
    Chain, Collected, Doom, Doomed, Edge, Explanation, Fate, Holder, ObjectKind, ObjectName, RootReason,
};
use gantry_core::{Error, Result};

use crate::call::present;
use crate::remote::answered;
use crate::timestamp;

fn unknown(what: &str, value: impl std::fmt::Debug) -> Error {
    Error::internal(format!("the answer has a {what} that is not known: {value:?}"))
}

pub(crate) fn object_to_proto(object: ObjectName) -> pb::Object {
    pb::Object {
        kind: object.kind.as_str().to_owned(),
        namespace: object.namespace,
        snapshotter: object.snapshotter,
        name: object.name,
    }
}

pub(crate) fn object_from_proto(object: Option<pb::Object>) -> Result<ObjectName> {
    let object = present(object, "object")?;
    Ok(ObjectName {
        kind: ObjectKind::parse(&object.kind)?,
        namespace: object.namespace,
        snapshotter: object.snapshotter,
        name: object.name,
    })
}

fn holder_to_proto(holder: Holder) -> pb::Holder {
    let (edge, label) = match holder.edge {
        Edge::Target => (pb::Edge::Target, String::new()),
        Edge::RootFilesystem => (pb::Edge::RootFilesystem, String::new()),
        Edge::Parent => (pb::Edge::Parent, String::new()),
        Edge::LeaseResource => (pb::Edge::LeaseResource, String::new()),
        Edge::Expected => (pb::Edge::Expected, String::new()),
        Edge::Label(key) => (pb::Edge::Label, key),
        Edge::BackReference(key) => (pb::Edge::BackReference, key),
        Edge::Condition(key) => (pb::Edge::Condition, key),
    };
    pb::Holder { object: Some(object_to_proto(holder.object)), edge: edge.into(), label }
}

fn holder_from_proto(holder: pb::Holder) -> Result<Holder> {
    let edge = match holder.edge() {
        pb::Edge::Target => Edge::Target,
        pb::Edge::RootFilesystem => Edge::RootFilesystem,
        pb::Edge::Parent => Edge::Parent,
        pb::Edge::LeaseResource => Edge::LeaseResource,
        pb::Edge::Expected => Edge::Expected,
        pb::Edge::Label => Edge::Label(holder.label),
        pb::Edge::BackReference => Edge::BackReference(holder.label),
        pb::Edge::Condition => Edge::Condition(holder.label),
        pb::Edge::Unspecified => return Err(unknown("edge", holder.edge)),
    };
    Ok(Holder { object: object_from_proto(holder.object)?, edge })
}

fn root_to_proto(root: RootReason) -> pb::Root {
    let (reason, label, expires) = match root {
        RootReason::Image => (pb::RootReason::Image, String::new(), None),
        RootReason::Container => (pb::RootReason::Container, String::new(), None),
        RootReason::Sandbox => (pb::RootReason::Sandbox, String::new(), None),
        RootReason::Lease(expires) => (pb::RootReason::Lease, String::new(), expires),
        RootReason::Label(key) => (pb::RootReason::Label, key, None),
        RootReason::Unexpired(at) => (pb::RootReason::Unexpired, String::new(), Some(at)),
        RootReason::Ingest(expires) => (pb::RootReason::Ingest, String::new(), expires),
    };
    pb::Root { reason: reason.into(), label, expires: expires.map(timestamp::to_proto) }
}

fn root_from_proto(root: Option<pb::Root>) -> Result<RootReason> {
    let root = answered(root, "root")?;
    let expires = timestamp::optional(root.expires, "expires")?;
    Ok(match root.reason() {
        pb::RootReason::Image => RootReason::Image,
        pb::RootReason::Container => RootReason::Container,
        pb::RootReason::Sandbox => RootReason::Sandbox,
        pb::RootReason::Lease => RootReason::Lease(expires),
        pb::RootReason::Label => RootReason::Label(root.label),
        pb::RootReason::Unexpired => RootReason::Unexpired(answered(expires, "expires")?),
        pb::RootReason::Ingest => RootReason::Ingest(expires),
        pb::RootReason::Unspecified => return Err(unknown("reason", root.reason)),
    })
}

fn chain_to_proto(chain: Chain) -> pb::Chain {
    pb::Chain {
        holders: chain.holders.into_iter().map(holder_to_proto).collect(),
        omitted: chain.omitted,
        root: Some(root_to_proto(chain.root)),
    }
}

fn chain_from_proto(chain: pb::Chain) -> Result<Chain> {
    Ok(Chain {
        holders: chain.holders.into_iter().map(holder_from_proto).collect::<Result<_>>()?,
        omitted: chain.omitted,
        root: root_from_proto(chain.root)?,
    })
}

pub(crate) fn explanation_to_proto(explanation: Explanation) -> pb::ExplainResponse {
    let (fate, reason) = match explanation.fate {
        Fate::Kept => (pb::Fate::Kept, String::new()),
        Fate::Collected => (pb::Fate::Collected, String::new()),
        Fate::Stays(reason) => (pb::Fate::Stays, reason),
    };
    pb::ExplainResponse {
        object: Some(object_to_proto(explanation.object)),
        fate: fate.into(),
        reason,
        chains: explanation.chains.into_iter().map(chain_to_proto).collect(),
        more: explanation.more,
        expired: explanation.expired.map(timestamp::to_proto),
    }
}

pub(crate) fn explanation_from_proto(answer: pb::ExplainResponse) -> Result<Explanation> {
    let fate = match answer.fate() {
        pb::Fate::Kept => Fate::Kept,
        pb::Fate::Collected => Fate::Collected,
        pb::Fate::Stays => Fate::Stays(answer.reason),
        pb::Fate::Unspecified => return Err(unknown("fate", answer.fate)),
    };
    Ok(Explanation {
        object: object_from_proto(answer.object)?,
        fate,
        chains: answer.chains.into_iter().map(chain_from_proto).collect::<Result<_>>()?,
        more: answer.more,
        expired: timestamp::optional(answer.expired, "expired")?,
    })
}

pub(crate) fn doomed_to_proto(doomed: Doomed) -> pb::Doomed {
    let why = match doomed.why {
        Doom::Unreferenced => pb::Doom::Unreferenced,
        Doom::Expired => pb::Doom::Expired,
        Doom::NoRecord => pb::Doom::NoRecord,
    };
    pb::Doomed {
        object: Some(object_to_proto(doomed.object)),
        why: why.into(),
        size_bytes: doomed.size_bytes,
        freed_bytes: doomed.freed_bytes,
    }
}

pub(crate) fn doomed_from_proto(doomed: pb::Doomed) -> Result<Doomed> {
    let why = match doomed.why() {
        pb::Doom::Unreferenced => Doom::Unreferenced,
        pb::Doom::Expired => Doom::Expired,
        pb::Doom::NoRecord => Doom::NoRecord,
        pb::Doom::Unspecified => return Err(unknown("reason", doomed.why)),
    };
    Ok(Doomed {
        object: object_from_proto(doomed.object)?,
        why,
        size_bytes: doomed.size_bytes,
        freed_bytes: doomed.freed_bytes,
    })
}

pub(crate) fn collected_to_proto(collected: Collected) -> pb::CollectResponse {
    pb::CollectResponse {
        elapsed_us: u64::try_from(collected.elapsed.as_micros()).unwrap_or(u64::MAX),
        leases: collected.leases,
        images: collected.images,
        blobs: collected.blobs,
        ingests: collected.ingests,
        snapshots: collected.snapshots,
    }
}

pub(crate) fn collected_from_proto(answer: pb::CollectResponse) -> Collected {
    Collected {
        elapsed: Duration::from_micros(answer.elapsed_us),
        leases: answer.leases,
        images: answer.images,
        blobs: answer.blobs,
        ingests: answer.ingests,
        snapshots: answer.snapshots,
    }
}

pub(crate) fn event_to_proto(event: CheckEvent) -> pb::CheckResponse {
    use pb::check_response::Event;
    let event = match event {
        CheckEvent::Progress { step, done, total } => Event::Progress(pb::Progress { step, done, total }),
        CheckEvent::Finding(finding) => Event::Finding(pb::Finding {
            problem: finding.problem.code().to_owned(),
            object: finding.object.map(object_to_proto),
            path: finding.path,
            detail: finding.detail,
            outcome: finding.outcome.as_str().to_owned(),
            action: finding.action,
        }),
        CheckEvent::Summary(summary) => Event::Summary(pb::CheckSummary {
            blobs: summary.blobs,
            hashed_bytes: summary.hashed_bytes,
            ingests: summary.ingests,
            snapshots: summary.snapshots,
            others: summary.others,
            notes: summary.notes,
            repairable: summary.repairable,
            repaired: summary.repaired,
            left: summary.left,
        }),
    };
    pb::CheckResponse { event: Some(event) }
}

pub(crate) fn event_from_proto(answer: pb::CheckResponse) -> Result<CheckEvent> {
    use pb::check_response::Event;
    Ok(match answered(answer.event, "event")? {
        Event::Progress(pb::Progress { step, done, total }) => CheckEvent::Progress { step, done, total },
        Event::Finding(finding) => CheckEvent::Finding(Finding {
            problem: Problem::parse(&finding.problem).ok_or_else(|| unknown("problem", &finding.problem))?,
            object: finding.object.map(|object| object_from_proto(Some(object))).transpose()?,
            path: finding.path,
            detail: finding.detail,
            outcome: Outcome::parse(&finding.outcome).ok_or_else(|| unknown("outcome", &finding.outcome))?,
            action: finding.action,
        }),
        Event::Summary(summary) => CheckEvent::Summary(CheckSummary {
            blobs: summary.blobs,
            hashed_bytes: summary.hashed_bytes,
            ingests: summary.ingests,
            snapshots: summary.snapshots,
            others: summary.others,
            notes: summary.notes,
            repairable: summary.repairable,
            repaired: summary.repaired,
            left: summary.left,
        }),
    })
}
