//! A model of everything that is stored: random operations on every noun, and what they should do.
//!
//! `World` is the model: plain maps, and a collection that is a fixed point over sets. `steps` makes up operations,
//! few names to each noun, so that they meet. `play` does each on the real thing and on the model and compares the answers, and the
//! whole state after each collection and at the end. A failure shrinks to few steps.
//!
//! What the model does is what containerd was seen to do; see the places marked with a source.

mod collection;
mod labels;
mod player;
mod records;
mod steps;
mod world;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::images::ImageStore;
use gantry_core::leases::LeaseManager;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::sandboxes::SandboxStore;
use gantry_core::snapshots::Snapshotter;
use proptest::test_runner::{Config, TestRunner};

/// How many cases a run has where `GANTRY_MODEL_CASES` does not say.
const CASES: u32 = 300;

/// How many steps a case has at most.
const STEPS: usize = 60;

/// The stores of every noun, over the same records.
#[derive(Clone)]
pub struct Stores {
    /// Namespaces.
    pub namespaces: Arc<dyn NamespaceStore>,
    /// Containers.
    pub containers: Arc<dyn ContainerStore>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Content.
    pub content: Arc<dyn ContentStore>,
    /// Leases.
    pub leases: Arc<dyn LeaseManager>,
    /// Sandboxes.
    pub sandboxes: Arc<dyn SandboxStore>,
    /// Snapshots of one snapshotter.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Its name.
    pub snapshotter: String,
    /// The store behind the content, which knows no namespaces, where it can be looked at.
    pub behind: Option<Arc<dyn ContentStore>>,
}

/// What is compared with the model.
#[async_trait]
pub trait Subject: Send {
    /// Whether calls cross a socket: writes then follow the protocol's conversation.
    const REMOTE: bool;
    /// Whether a commit of a snapshot can give it another parent.
    const REBASES: bool;

    /// Opens it on an empty directory.
    async fn open() -> Self;

    /// Its stores.
    fn stores(&self) -> Stores;

    /// Closes it and opens it again on the same directory.
    async fn reopen(&mut self);
}

/// Plays random steps on a subject `share` times less often than the number of cases that is asked for, and panics with the
/// smallest sequence of steps that it does otherwise than the model.
pub fn compare<S: Subject>(share: u32) {
    let asked = std::env::var("GANTRY_MODEL_CASES").ok().and_then(|text| text.parse().ok());
    let cases = (asked.unwrap_or(CASES) / share).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    let result = TestRunner::new(config).run(&steps::steps(STEPS), |steps| {
        runtime.block_on(player::play::<S>(&steps));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{cases} cases, up to {STEPS} steps each");
}
