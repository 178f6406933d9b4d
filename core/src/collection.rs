//! What a garbage collection takes along although the metadata does not keep it: open streams, active mounts.

use async_trait::async_trait;

use crate::{Labels, LeaseId};

/// One thing that lives as long as something else does.
#[derive(Clone, Debug, PartialEq)]
pub struct Collectable {
    /// Its number, never used for another.
    pub id: u64,
    /// Its namespace; empty for none.
    pub namespace: String,
    /// Its name in that namespace, by which labels refer to it.
    pub name: String,
    /// The lease that it was made under.
    pub lease: Option<LeaseId>,
    /// Back references among these keep it as long as what they name.
    pub labels: Labels,
}

/// Keeps things of one kind for a collection to look at.
#[async_trait]
pub trait Collection: Send + Sync {
    /// The kind, as labels `containerd.io/gc.ref.<kind>` spell it: `stream`, `mount`.
    fn kind(&self) -> &'static str;

    /// All things that are to go unless their lease is there, a back reference of theirs names something that is, or a label
    /// refers to them. What is kept anyhow is left out.
    async fn collectables(&self) -> crate::Result<Vec<Collectable>>;

    /// Removes those of `gone` that are still there, and whatever an earlier removal could not. Called after every collection;
    /// what fails is logged, and tried again the next time.
    async fn collect(&self, gone: Vec<Collectable>);
}
