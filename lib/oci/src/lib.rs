//! OCI image and runtime specifications: what an image is made of, and how a container's runtime spec is built.
//!
//! Nothing here talks to a registry (`gantry-registry`), unpacks a layer (`gantry-archive`) or runs a container
//! (`gantry-runtime`). Everything read here comes from strangers, so documents are bounded in size, and files of an
//! image are opened so that they can neither block nor lead out of it.
//!
//! The first types to read are [`reference::Reference`], [`manifest::Document`] and [`spec::SpecOptions`].
//!
//! Manifests and image configurations are types of our own rather than `oci-spec`'s: those refuse documents that are
//! common in the field (`"layers": null`, no `os`), and know no size limits. Runtime specs are `oci-spec`'s types,
//! exported as [`runtime`], because the built-in runtime takes them.
#![forbid(unsafe_code)]

pub mod chain_id;
pub mod gc_labels;
pub mod image_config;
pub mod image_content;
pub mod manifest;
pub mod media_types;
pub mod platforms;
pub mod reference;
pub mod rootfs;
pub mod spec;
pub mod user;

mod json;

pub use oci_spec::runtime;

pub use image_config::ImageConfig;
pub use manifest::{ChildDescriptor, Document, Index, Manifest};
pub use platforms::PlatformMatcher;
pub use reference::Reference;
pub use spec::SpecOptions;
