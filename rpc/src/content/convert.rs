//! Blobs and writes in progress.

use gantry_api::containerd::services::content::v1::{Info, Status};
use gantry_core::content::{ContentInfo, IngestStatus};
use gantry_core::{Digest, IngestRef, Result};

use crate::call::present;
use crate::timestamp;

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn info_to_proto(info: ContentInfo) -> Info {
    Info {
        digest: info.digest.into_string(),
        size: signed(info.size_bytes),
        created_at: Some(timestamp::to_proto(info.created_at)),
        updated_at: Some(timestamp::to_proto(info.updated_at)),
        labels: info.labels,
    }
}

pub(crate) fn status_to_proto(status: IngestStatus) -> Status {
    Status {
        started_at: Some(timestamp::to_proto(status.started_at)),
        updated_at: Some(timestamp::to_proto(status.updated_at)),
        r#ref: status.reference.into_string(),
        offset: signed(status.offset_bytes),
        total: signed(status.total_bytes),
        expected: status.expected.map(Digest::into_string).unwrap_or_default(),
    }
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(crate) fn info_from_proto(info: Option<Info>) -> Result<ContentInfo> {
    let info = present(info, "info")?;
    Ok(ContentInfo {
        digest: Digest::parse(info.digest)?,
        size_bytes: unsigned(info.size),
        created_at: timestamp::or_epoch(info.created_at),
        updated_at: timestamp::or_epoch(info.updated_at),
        labels: info.labels,
    })
}

pub(crate) fn status_from_proto(status: Option<Status>) -> Result<IngestStatus> {
    let status = present(status, "status")?;
    Ok(IngestStatus {
        reference: IngestRef::parse(status.r#ref)?,
        offset_bytes: unsigned(status.offset),
        total_bytes: unsigned(status.total),
        expected: Digest::parse(status.expected).ok(),
        started_at: timestamp::or_epoch(status.started_at),
        updated_at: timestamp::or_epoch(status.updated_at),
    })
}
