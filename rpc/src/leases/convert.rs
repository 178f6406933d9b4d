//! Leases.

use gantry_api::containerd::services::leases::v1::{Lease as Proto, Resource};
use gantry_core::leases::{Lease, LeaseResource};
use gantry_core::{LeaseId, Result};

use crate::call::present;
use crate::timestamp;

pub(crate) fn to_proto(lease: Lease) -> Proto {
    Proto {
        id: lease.id.into_string(),
        created_at: Some(timestamp::to_proto(lease.created_at)),
        labels: lease.labels,
    }
}

pub(crate) fn resource_from_proto(resource: Option<Resource>) -> Result<LeaseResource> {
    let resource = present(resource, "resource")?;
    Ok(LeaseResource { id: resource.id, kind: resource.r#type })
}

pub(crate) fn resource_to_proto(resource: LeaseResource) -> Resource {
    Resource { id: resource.id, r#type: resource.kind }
}

pub(crate) fn from_proto(lease: Option<Proto>) -> Result<Lease> {
    let lease = present(lease, "lease")?;
    Ok(Lease {
        id: LeaseId::parse(lease.id)?,
        created_at: timestamp::or_epoch(lease.created_at),
        labels: lease.labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_named() {
        let error = resource_from_proto(None).unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::InvalidArgument);
        assert!(error.message().contains("resource"), "{error}");
    }
}
