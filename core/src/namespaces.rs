//! Namespaces: the tenants of every record.
//!
//! A namespace need not be created: the first write into it makes it. It can be deleted once nothing is left in it.

use async_trait::async_trait;

use crate::field_mask::FieldMask;
use crate::{Context, Labels, Namespace, Result};

/// A namespace and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// Its name; immutable.
    pub name: Namespace,
    /// Its labels; the client reads its defaults from them.
    pub labels: Labels,
}

/// Where namespaces are kept. None of its methods needs a namespace in the context.
#[async_trait]
pub trait NamespaceStore: Send + Sync {
    /// Makes a namespace.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a label that is too long.
    async fn create(&self, cx: &Context, new: NamespaceRecord) -> Result<NamespaceRecord>;

    /// The labels of a namespace; empty, and no error, for one that does not exist.
    ///
    /// # Errors
    /// Only those of the store itself.
    async fn labels(&self, cx: &Context, name: &str) -> Result<Labels>;

    /// Every namespace, in byte order.
    ///
    /// # Errors
    /// Only those of the store itself.
    async fn list(&self, cx: &Context) -> Result<Vec<NamespaceRecord>>;

    /// Sets the labels named by `mask` (`labels.<key>`), or all of them without mask; an empty value removes.
    /// A namespace that does not exist is made.
    ///
    /// # Errors
    /// `InvalidArgument` for any other path.
    async fn update(
        &self,
        cx: &Context,
        changed: NamespaceRecord,
        mask: &FieldMask,
    ) -> Result<NamespaceRecord>;

    /// Removes a namespace with the leases, ingests and sandboxes left in it.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` naming what is still in it (containers, images, blobs, snapshots).
    async fn delete(&self, cx: &Context, name: &Namespace) -> Result<()>;
}
