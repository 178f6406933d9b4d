//! Snapshots.

use gantry_api::containerd::services::snapshots::v1::{Info, Kind};
use gantry_core::snapshots::{SnapshotInfo, SnapshotKind};

use gantry_core::{Error, Result, SnapshotKey};

use crate::call::present;
use crate::timestamp;

pub(crate) fn to_proto(info: SnapshotInfo) -> Info {
    let kind = match info.kind {
        SnapshotKind::View => Kind::View,
        SnapshotKind::Active => Kind::Active,
        SnapshotKind::Committed => Kind::Committed,
    };
    Info {
        name: info.name.into_string(),
        parent: info.parent.map(SnapshotKey::into_string).unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp::to_proto(info.created_at)),
        updated_at: Some(timestamp::to_proto(info.updated_at)),
        labels: info.labels,
    }
}

pub(crate) fn from_proto(info: Option<Info>) -> Result<SnapshotInfo> {
    let info = present(info, "info")?;
    let kind = match info.kind() {
        Kind::View => SnapshotKind::View,
        Kind::Active => SnapshotKind::Active,
        Kind::Committed => SnapshotKind::Committed,
        Kind::Unknown => return Err(Error::internal(format!("snapshot {:?} is of no kind", info.name))),
    };
    Ok(SnapshotInfo {
        name: SnapshotKey::parse(info.name)?,
        parent: SnapshotKey::parse(info.parent).ok(),
        kind,
        created_at: timestamp::or_epoch(info.created_at),
        updated_at: timestamp::or_epoch(info.updated_at),
        labels: info.labels,
    })
}
