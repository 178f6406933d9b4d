//! Snapshots.

use gantry_api::containerd::services::snapshots::v1::{Info, Kind};
use gantry_core::snapshots::{SnapshotInfo, SnapshotKind};

use crate::timestamp;

pub(crate) fn to_proto(info: SnapshotInfo) -> Info {
    let kind = match info.kind {
        SnapshotKind::View => Kind::View,
        SnapshotKind::Active => Kind::Active,
        SnapshotKind::Committed => Kind::Committed,
    };
    Info {
        name: info.name.into_string(),
        parent: info.parent.map(gantry_core::SnapshotKey::into_string).unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp::to_proto(info.created_at)),
        updated_at: Some(timestamp::to_proto(info.updated_at)),
        labels: info.labels,
    }
}
