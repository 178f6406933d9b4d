//! What `cargo metadata` says about the crates.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::step::{Result, cargo, run};

/// All crates of the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    workspace_root: String,
    resolve: Resolve,
}

/// One crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) source: Option<String>,
    manifest_path: String,
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Debug, Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// One crate uses another.
#[derive(Debug)]
pub(crate) struct Edge<'a> {
    pub(crate) from: &'a Package,
    pub(crate) to: &'a Package,
    /// Whether only its tests do.
    pub(crate) dev_only: bool,
}

impl Metadata {
    /// Asks cargo. What the lock file names is fetched first, if it was not yet; then nothing needs the network.
    pub(crate) fn read() -> Result<Metadata> {
        const PLATFORM: &str = "x86_64-unknown-linux-gnu";
        let ask = || {
            let mut command =
                cargo(&["metadata", "--format-version", "1", "--offline", "--filter-platform", PLATFORM]);
            command.output().map_err(|error| format!("cannot start cargo: {error}"))
        };
        let mut output = ask()?;
        if !output.status.success() {
            run(&mut cargo(&["fetch", "--quiet", "--target", PLATFORM]))?;
            output = ask()?;
        }
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
    }

    fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }

    /// The crates of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Crates that are built for this machine, tests included.
    pub(crate) fn used(&self) -> impl Iterator<Item = &Package> {
        self.resolve.nodes.iter().filter_map(|node| self.package(&node.id))
    }

    /// All edges between crates that are built for this machine.
    pub(crate) fn edges(&self) -> Vec<Edge<'_>> {
        let mut edges = Vec::new();
        for node in &self.resolve.nodes {
            let Some(from) = self.package(&node.id) else { continue };
            for dep in &node.deps {
                let Some(to) = self.package(&dep.pkg) else { continue };
                let dev_only = dep.dep_kinds.iter().all(|kind| kind.kind.as_deref() == Some("dev"));
                edges.push(Edge { from, to, dev_only });
            }
        }
        edges
    }

    /// Where `package` lies in the workspace, such as `plugins/content`.
    pub(crate) fn folder<'a>(&self, package: &'a Package) -> Option<&'a str> {
        let below = package.manifest_path.strip_prefix(&self.workspace_root)?;
        Some(below.trim_start_matches('/').trim_end_matches("Cargo.toml").trim_end_matches('/'))
    }
}
