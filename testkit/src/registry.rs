//! A real registry: Debian's `docker-registry` on a free loopback port, with storage of its own.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::binaries::find_in_path;
use crate::command::Background;
use crate::eventually::eventually;
use crate::http::request;
use crate::image::{Blob, Image};

/// A running registry. It ends, and its default storage goes, when this is dropped.
#[derive(Debug)]
pub struct Registry {
    address: String,
    process: Background,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry with an empty storage.
    #[must_use]
    pub fn start() -> Registry {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let storage = dir.path().join("storage");
        Self::start_in(dir, &storage)
    }

    /// Starts a registry that keeps its content in `storage`, which outlives it.
    #[must_use]
    pub fn start_with_storage(storage: &Path) -> Registry {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), storage)
    }

    fn start_in(dir: tempfile::TempDir, storage: &Path) -> Registry {
        let program = find_in_path("docker-registry").expect("docker-registry is installed");
        let address = free_address();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let mut process = Background::spawn(Command::new(program).arg("serve").arg(&config));
        eventually("the registry to answer", || {
            if let Some(code) = process.try_wait() {
                panic!("docker-registry ended with {code}:\n{}", process.stderr());
            }
            request(&address, "GET", "/v2/", "", &[]).ok().filter(|response| response.status == 200)
        });
        Registry { address, process, _dir: dir }
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The full reference of `repository:tag` in this registry.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The process that serves.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Pushes `image` as `name` (`repository:tag`) and returns its full reference.
    pub fn push(&self, image: &Image, name: &str) -> String {
        let (repository, tag) = name.split_once(':').expect("a name is repository:tag");
        for blob in std::iter::once(&image.config).chain(&image.layers) {
            self.push_blob(repository, blob);
        }
        let target = format!("/v2/{repository}/manifests/{tag}");
        let response =
            request(&self.address, "PUT", &target, &image.manifest.media_type, &image.manifest.bytes);
        let status = response.expect("the registry takes a manifest").status;
        assert_eq!(status, 201, "push the manifest of {name}");
        self.reference(name)
    }

    /// Source: OCI distribution specification, "Pushing blobs", POST then PUT.
    fn push_blob(&self, repository: &str, blob: &Blob) {
        let target = format!("/v2/{repository}/blobs/{}", blob.digest);
        if request(&self.address, "HEAD", &target, "", &[]).is_ok_and(|response| response.status == 200) {
            return;
        }
        let started = request(&self.address, "POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        let started = started.expect("the registry starts an upload");
        assert_eq!(started.status, 202, "start an upload to {repository}");
        let location = started.header("Location").expect("an upload has a location");
        let path = location
            .strip_prefix("http://")
            .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
            .unwrap_or(location);
        let joint = if path.contains('?') { '&' } else { '?' };
        let target = format!("{path}{joint}digest={}", blob.digest);
        let done = request(&self.address, "PUT", &target, "application/octet-stream", &blob.bytes);
        let status = done.expect("the registry takes a blob").status;
        assert_eq!(status, 201, "push blob {} to {repository}", blob.digest);
    }
}

/// A loopback address that was free a moment ago.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a listener has an address").to_string()
}
