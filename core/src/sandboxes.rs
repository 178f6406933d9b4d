//! Sandboxes: what the containers of a pod share.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::containers::ContainerRuntime;
use crate::field_mask::FieldMask;
use crate::filters::{Adaptor, label_field};
use crate::{Any, Context, Labels, Result, SandboxId};

/// A sandbox as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// Its name; immutable.
    pub id: SandboxId,
    /// Its labels.
    pub labels: Labels,
    /// Its runtime; the name is required.
    pub runtime: ContainerRuntime,
    /// Its specification, optional.
    pub spec: Option<Any>,
    /// Which controller runs it.
    pub sandboxer: String,
    /// When it was stored; set by the store.
    pub created_at: SystemTime,
    /// When it was last changed; set by the store.
    pub updated_at: SystemTime,
    /// Clients' own data, by name.
    pub extensions: BTreeMap<String, Any>,
}

impl Adaptor for Sandbox {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E24.
            ["id"] => Some(self.id.to_string()),
            ["labels", key @ ..] => label_field(&self.labels, key),
            _ => None,
        }
    }
}

/// Where sandbox records are kept, by namespace.
#[async_trait]
pub trait SandboxStore: Send + Sync {
    /// Stores `new`.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` if a required field is missing.
    async fn create(&self, cx: &Context, new: Sandbox) -> Result<Sandbox>;

    /// Changes the parts that `mask` names: `labels`, `labels.<k>`, `extensions`, `extensions.<k>`, `runtime`, `spec`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path.
    async fn update(&self, cx: &Context, changed: Sandbox, mask: &FieldMask) -> Result<Sandbox>;

    /// The record of `id`.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, cx: &Context, id: &str) -> Result<Sandbox>;

    /// The sandboxes that any of `filters` matches, in byte order of their ids.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn list(&self, cx: &Context, filters: &[String]) -> Result<Vec<Sandbox>>;

    /// Removes the record.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, cx: &Context, id: &str) -> Result<()>;
}
