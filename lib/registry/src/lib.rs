//! A client of OCI registries: resolve a name, fetch and push what it names.
//!
//! It speaks the OCI distribution protocol and Docker's registry API v2. Which hosts are asked for an image is
//! configured per registry in `hosts.toml` files, read anew for each [`Repository`]. Storing what was fetched, unpacking
//! and progress belong to others.
//!
//! The first types to read are [`Registry`], which holds the options, and [`Repository`], which does the work.
//! Everything that a server answers is taken as hostile: sizes are bounded, digests are checked, credentials go only
//! to the host that they were given for, and a connection that does not deliver is given up and dialled again.
#![forbid(unsafe_code)]

pub mod blob;
pub mod credentials;
pub mod docker_config;
pub mod explain;
pub mod hosts;
pub mod proxy;
pub mod push;
pub mod referrers;
pub mod repository;
pub mod stall;

mod answer;
mod authorizer;
mod certificates;
mod challenge;
mod duration;
mod failure;
mod hosts_file;
mod manifest;
mod redirect;
mod resolve;
mod retry;
mod tls;
mod token;
mod transport;
mod upload;

pub use blob::{BlobReader, FetchOptions};
pub use credentials::{CredentialSource, Credentials};
pub use docker_config::DockerConfig;
pub use explain::{Explanation, Operation};
pub use hosts::{Capabilities, HostPlan, HostsOptions, RegistryHost};
pub use repository::{Registry, RegistryOptions, Repository, Resolved, Timeouts};
pub use stall::StallRule;
