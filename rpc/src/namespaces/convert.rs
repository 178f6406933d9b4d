//! Namespaces.

use gantry_api::containerd::services::namespaces::v1::Namespace as Proto;
use gantry_core::identifiers::validate_identifier;
use gantry_core::namespaces::NamespaceRecord;
use gantry_core::{Namespace, Result};

use crate::call::present;

pub(crate) fn from_proto(namespace: Option<Proto>) -> Result<NamespaceRecord> {
    let namespace = present(namespace, "namespace")?;
    // Without the prefix that the header's error has. Source: observed answers.
    validate_identifier(&namespace.name)?;
    Ok(NamespaceRecord { name: Namespace::parse(namespace.name)?, labels: namespace.labels })
}

pub(crate) fn to_proto(namespace: NamespaceRecord) -> Proto {
    Proto { name: namespace.name.into_string(), labels: namespace.labels }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn what_is_absent_is_named() {
        assert_eq!(from_proto(None).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
