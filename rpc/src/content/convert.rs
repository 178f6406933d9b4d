//! Blobs and writes in progress.

use gantry_api::containerd::services::content::v1::{Info, Status};
use gantry_core::Digest;
use gantry_core::content::{ContentInfo, IngestStatus};

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
