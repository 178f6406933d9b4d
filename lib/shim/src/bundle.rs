//! What a shim reads from, and leaves in, a container's bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gantry_api::containerd::runc::v1::Options;
use gantry_core::{Any, Error, Result, ResultExt, wire_names};
use prost::Message;
use serde::Deserialize;

/// The most that is read of a bundle's file. A specification may be long, not endless.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The parts of `config.json` that a shim itself looks at. The rest is the runtime's.
#[derive(Debug, Default, Deserialize)]
pub struct SpecHead {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<LinuxHead>,
}

#[derive(Debug, Default, Deserialize)]
struct LinuxHead {
    #[serde(default)]
    namespaces: Option<Vec<NamespaceHead>>,
}

#[derive(Debug, Deserialize)]
struct NamespaceHead {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

impl SpecHead {
    /// Reads the bundle's `config.json`.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidArgument` if it does not parse.
    pub fn read(bundle: &Path) -> Result<SpecHead> {
        let path = bundle.join("config.json");
        let text = read(&path)?;
        serde_json::from_slice(&text).map_err(|error| Error::invalid_argument(format!("{path:?}: {error}")))
    }

    /// The group of containers that share a shim, if this one is in any. Source: features I13.
    pub fn group(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        [wire_names::ANNOTATION_SHIM_GROUP, wire_names::ANNOTATION_SANDBOX_ID]
            .iter()
            .find_map(|name| annotations.get(*name))
            .map(String::as_str)
            .filter(|group| !group.is_empty())
    }

    /// Whether processes of the container may outlive its init: it has no pid namespace of its own.
    pub fn outlives_init(&self) -> bool {
        let namespaces =
            self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        !namespaces.iter().any(|namespace| namespace.kind == "pid" && namespace.path.is_empty())
    }
}

/// The runc options in `any`; the defaults for none.
///
/// # Errors
/// `InvalidArgument` for options that do not decode; `Unknown` for those of another kind.
pub fn options_from_any(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any else { return Ok(Options::default()) };
    match any.type_name() {
        "" if any.value.is_empty() => Ok(Options::default()),
        wire_names::TYPE_RUNC_OPTIONS => Options::decode(any.value.clone())
            .map_err(|error| Error::invalid_argument(format!("runc options: {error}"))),
        // What runtimes other than runc are given. There is nothing in it for us.
        "runtimeoptions.v1.Options" => Ok(Options::default()),
        other => Err(Error::unknown(format!("runtime options of type {other:?}"))),
    }
}

/// Notes for whoever cleans up after a shim that died: which runtime, which of its directories, which process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The runtime's binary; empty for the default.
    pub binary_name: String,
    /// The runtime's state directory; empty for the default.
    pub root: String,
    /// Whether cgroups are systemd's.
    pub systemd_cgroup: bool,
    /// The init process.
    pub pid: u32,
}

/// Source: the original's bundle: `options.json`, `runtime` and `init.pid`.
const OPTIONS: &str = "options.json";
const RUNTIME: &str = "runtime";
const PID: &str = "init.pid";

impl Notes {
    /// Writes what is known before the container is made.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write(bundle: &Path, options: &Options) -> Result<()> {
        let text = serde_json::json!({
            "binary_name": options.binary_name,
            "root": options.root,
            "systemd_cgroup": options.systemd_cgroup,
            "no_pivot_root": options.no_pivot_root,
            "no_new_keyring": options.no_new_keyring,
            "shim_cgroup": options.shim_cgroup,
            "io_uid": options.io_uid,
            "io_gid": options.io_gid,
            "criu_image_path": options.criu_image_path,
            "criu_work_path": options.criu_work_path,
        });
        write(&bundle.join(OPTIONS), text.to_string().as_bytes())?;
        write(&bundle.join(RUNTIME), options.binary_name.as_bytes())
    }

    /// Writes which process is the container's init.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write_pid(bundle: &Path, pid: u32) -> Result<()> {
        write(&bundle.join(PID), pid.to_string().as_bytes())
    }

    /// Reads what there is; nothing is missing that a default does not stand for.
    pub fn read(bundle: &Path) -> Notes {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Saved {
            binary_name: String,
            root: String,
            systemd_cgroup: bool,
        }
        let text = |name: &str| {
            let read = read(&bundle.join(name)).ok()?;
            Some(String::from_utf8_lossy(&read).trim().to_owned())
        };
        let saved: Saved =
            text(OPTIONS).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let binary_name = match saved.binary_name {
            name if name.is_empty() => text(RUNTIME).unwrap_or_default(),
            name => name,
        };
        Notes {
            binary_name,
            root: saved.root,
            systemd_cgroup: saved.systemd_cgroup,
            pid: text(PID).and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}

/// The directory where the root file system is mounted.
pub fn rootfs(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut text))
        .with_context(|| format!("read {path:?}"))?;
    Ok(text)
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text))
        .with_context(|| format!("write {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> SpecHead {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_group_comes_from_annotations() {
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(head(both).group(), Some("g"));
        assert_eq!(head(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#).group(), Some("pod"));
        assert_eq!(head(r#"{"annotations":null}"#).group(), None);
        assert_eq!(head("{}").group(), None);
    }

    #[test]
    fn only_a_pid_namespace_of_its_own_ends_with_its_init() {
        assert!(!head(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#).outlives_init());
        assert!(head(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#).outlives_init());
        assert!(head(r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#).outlives_init());
        assert!(head("{}").outlives_init());
    }

    #[test]
    fn notes_come_back_the_same() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Notes::read(dir.path()), Notes::default());
        let options = Options {
            binary_name: "crun".into(),
            root: "/run/x".into(),
            systemd_cgroup: true,
            ..Options::default()
        };
        Notes::write(dir.path(), &options).unwrap();
        Notes::write_pid(dir.path(), 7).unwrap();
        let expected =
            Notes { binary_name: "crun".into(), root: "/run/x".into(), systemd_cgroup: true, pid: 7 };
        assert_eq!(Notes::read(dir.path()), expected);
    }

    #[test]
    fn options_of_a_strange_type_are_refused() {
        assert!(options_from_any(Some(&Any::new("what.Ever", &b"x"[..]))).is_err());
        assert!(options_from_any(Some(&Any::new(wire_names::TYPE_RUNC_OPTIONS, &b"\xff"[..]))).is_err());
        assert_eq!(options_from_any(None).unwrap(), Options::default());
        let real = Options { root: "/r".into(), ..Options::default() };
        let any =
            Any::new(format!("type.googleapis.com/{}", wire_names::TYPE_RUNC_OPTIONS), real.encode_to_vec());
        assert_eq!(options_from_any(Some(&any)).unwrap(), real);
    }
}
