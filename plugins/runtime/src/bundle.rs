//! The directory of a container that is handed to its shim.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_core::{ContainerId, Error, ErrorKind, Namespace, Result, ResultExt};
use gantry_mount::Busy;
use gantry_shim::bootstrap::Answer;
use serde::{Deserialize, Serialize};

/// Source: features I08.
const TASKS_DIR: &str = "io.containerd.runtime.v2.task";
const CONFIG: &str = "config.json";
const WORK: &str = "work";
const BOOTSTRAP: &str = "bootstrap.json";
const ADDRESS: &str = "address";
const SHIM_BINARY: &str = "shim-binary-path";
const SANDBOX: &str = "sandbox";
/// Ours: the exit of the init process, or of the sandbox, has been told to the world.
const EXIT_TOLD: &str = "exit-told";
/// Ours: the sandbox has begun.
const STARTED: &str = "sandbox-started";

/// The most that is read of one of a bundle's small files.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Where the bundles of a daemon are.
#[derive(Clone, Debug)]
pub(crate) struct Bundles {
    state: PathBuf,
    root: PathBuf,
}

/// One bundle; that it exists is not said.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) namespace: Namespace,
    pub(crate) id: ContainerId,
    pub(crate) path: PathBuf,
    work: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: i32,
    address: String,
    protocol: String,
}

impl Bundles {
    /// Those of tasks, in directories that the root of a user namespace may pass through. Source: features C45.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn of_tasks(state: &Path, root: &Path) -> Result<Bundles> {
        Bundles::open(state.join(TASKS_DIR), root.join(TASKS_DIR), 0o711)
    }

    /// Those of sandboxes, in directories that are closed to others. Source: security S18.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn of_sandboxes(state: &Path, root: &Path) -> Result<Bundles> {
        Bundles::open(state.to_owned(), root.to_owned(), 0o700)
    }

    /// Makes the two directories. Source: security S05, S18.
    fn open(state: PathBuf, root: PathBuf, mode: u32) -> Result<Bundles> {
        for dir in [&state, &root] {
            make_dir(dir)?;
            std::fs::set_permissions(dir, Permissions::from_mode(mode))
                .with_context(|| format!("close {dir:?}"))?;
        }
        Ok(Bundles { state, root })
    }

    pub(crate) fn bundle(&self, namespace: &Namespace, id: &ContainerId) -> Bundle {
        let below = Path::new(namespace.as_str()).join(id.as_str());
        Bundle {
            namespace: namespace.clone(),
            id: id.clone(),
            path: self.state.join(&below),
            work: self.root.join(below),
        }
    }

    /// Every bundle there is. Remains of bundles that were being deleted are removed, and so are work directories that
    /// belong to no bundle; what has no proper name is not ours and stays.
    ///
    /// # Errors
    /// What the kernel said about the upper two directories.
    pub(crate) fn list(&self) -> Result<Vec<Bundle>> {
        let mut found = Vec::new();
        for namespace in names(&self.state)? {
            let Ok(namespace) = Namespace::parse(namespace) else { continue };
            let dir = self.state.join(namespace.as_str());
            for name in names(&dir)? {
                if let Some(id) = name.strip_prefix('.').and_then(|id| ContainerId::parse(id).ok()) {
                    if let Err(error) = remove_tree(&dir.join(format!(".{id}"))) {
                        tracing::warn!(%error, %namespace, container_id = %id, "remains of a bundle stay");
                    }
                } else if let Ok(id) = ContainerId::parse(name) {
                    found.push(self.bundle(&namespace, &id));
                }
            }
        }
        self.remove_orphans()?;
        Ok(found)
    }

    fn remove_orphans(&self) -> Result<()> {
        for namespace in names(&self.root)? {
            let Ok(namespace) = Namespace::parse(namespace) else { continue };
            for name in names(&self.root.join(namespace.as_str()))? {
                let Ok(id) = ContainerId::parse(name) else { continue };
                let bundle = self.bundle(&namespace, &id);
                if !bundle.path.exists()
                    && let Err(error) = remove_tree(&bundle.work)
                {
                    tracing::warn!(%error, path = ?bundle.work, "a work directory without bundle stays");
                }
            }
        }
        Ok(())
    }
}

impl Bundle {
    /// Makes the bundle with `spec` in it; a sandbox may have none.
    ///
    /// # Errors
    /// `AlreadyExists`; otherwise what the kernel said. Nothing is left then.
    pub(crate) fn create(&self, spec: Option<&[u8]>, sandbox_id: &str) -> Result<()> {
        for dir in [&self.path, &self.work] {
            make_dir(dir.parent().expect("a bundle lies below its namespace's directory"))?;
        }
        // A work directory without bundle is what a crash left.
        remove_tree(&self.work)?;
        new_dir(&self.path, 0o700)?;
        let made = self.fill(spec, sandbox_id);
        if made.is_err()
            && let Err(error) = self.delete()
        {
            tracing::warn!(%error, path = ?self.path, "a bundle that could not be made stays");
        }
        made
    }

    fn fill(&self, spec: Option<&[u8]>, sandbox_id: &str) -> Result<()> {
        new_dir(&self.rootfs(), 0o711)?;
        new_dir(&self.work, 0o700)?;
        std::os::unix::fs::symlink(&self.work, self.path.join(WORK))
            .with_context(|| format!("link the work directory of {:?}", self.path))?;
        // The root of a user namespace passes through on its way to the root file system.
        if let Some(gid) = spec.and_then(remapped_root) {
            std::os::unix::fs::chown(&self.path, None, Some(gid))
                .and_then(|()| std::fs::set_permissions(&self.path, Permissions::from_mode(0o710)))
                .with_context(|| format!("open {:?} for group {gid}", self.path))?;
        }
        if !sandbox_id.is_empty() {
            self.write(SANDBOX, sandbox_id.as_bytes())?;
        }
        spec.map_or(Ok(()), |spec| self.write(CONFIG, spec))
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Removes the bundle, and unmounts its root file system if it still is mounted. May run twice.
    ///
    /// # Errors
    /// What the kernel said. Nothing is removed below a mount that stays.
    pub(crate) fn delete(&self) -> Result<()> {
        let hidden = self.path.with_file_name(format!(".{}", self.id));
        if std::fs::symlink_metadata(&self.path).is_ok() {
            if std::fs::symlink_metadata(self.rootfs()).is_ok_and(|found| found.is_dir()) {
                gantry_mount::unmount_recursive(&self.rootfs(), Busy::Detach)
                    .with_context(|| format!("unmount {:?}", self.rootfs()))?;
            }
            remove_tree(&hidden)?;
            std::fs::rename(&self.path, &hidden).with_context(|| format!("rename {:?}", self.path))?;
        }
        let removed = remove_tree(&hidden);
        remove_tree(&self.work)?;
        removed
    }

    /// As [`Bundle::delete`]; what cannot be removed is logged, and found again at the next start.
    pub(crate) async fn delete_or_log(&self) {
        let gone = self.clone();
        let deleted = tokio::task::spawn_blocking(move || gone.delete()).await;
        let deleted = deleted.unwrap_or_else(|error| Err(Error::with_source(ErrorKind::Internal, error)));
        if let Err(error) = deleted {
            tracing::warn!(%error, namespace = %self.namespace, container_id = %self.id, "a bundle stays");
        }
    }

    /// Whether there is a specification: without one the bundle is what a crash left.
    pub(crate) fn is_whole(&self) -> bool {
        self.path.join(CONFIG).is_file()
    }

    /// Notes which shim serves the bundle.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn write_shim(&self, binary: &Path, answer: &Answer) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        self.write(SHIM_BINARY, binary.as_os_str().as_bytes())?;
        let saved = Saved {
            version: answer.version,
            address: answer.address.clone(),
            protocol: answer.protocol.clone(),
        };
        let text = serde_json::to_vec(&saved)
            .map_err(|error| Error::internal(format!("encode {BOOTSTRAP}: {error}")))?;
        self.write(BOOTSTRAP, &text)
    }

    /// Which shim serves the bundle, as it answered to its start.
    ///
    /// # Errors
    /// `NotFound` if nobody wrote it down; `InvalidArgument` if it cannot be made sense of.
    pub(crate) fn shim(&self) -> Result<Answer> {
        let text = match self.read(BOOTSTRAP) {
            Ok(text) => text,
            // What shims before 1.7 left.
            Err(_) => self.read(ADDRESS)?,
        };
        Answer::parse(text.trim_ascii())
    }

    /// The shim's program.
    ///
    /// # Errors
    /// `NotFound` if nobody wrote it down.
    pub(crate) fn shim_binary(&self) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(self.read(SHIM_BINARY)?)))
    }

    /// The init process, as the shim wrote it down; 0 if it did not.
    pub(crate) fn init_pid(&self) -> u32 {
        let text = self.read("init.pid").unwrap_or_default();
        std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// The sandbox that the container belongs to; empty for none.
    pub(crate) fn sandbox(&self) -> String {
        let text = self.read(SANDBOX).unwrap_or_default();
        String::from_utf8(text).unwrap_or_default()
    }

    /// Notes that the sandbox has begun, for the daemon after this one.
    pub(crate) fn note_started(&self) {
        if let Err(error) = self.write(STARTED, b"") {
            tracing::debug!(%error, path = ?self.path, "the start of a sandbox is not noted");
        }
    }

    pub(crate) fn is_started(&self) -> bool {
        self.path.join(STARTED).exists()
    }

    /// Notes that the exit of the init process was told, for the daemon after this one.
    pub(crate) fn note_exit_told(&self) {
        if self.path.is_dir()
            && let Err(error) = self.write(EXIT_TOLD, b"")
        {
            tracing::debug!(%error, path = ?self.path, "a told exit is not noted");
        }
    }

    pub(crate) fn is_exit_told(&self) -> bool {
        self.path.join(EXIT_TOLD).exists()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let mut text = Vec::new();
        File::options()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut text))
            .with_context(|| format!("read {path:?}"))?;
        Ok(text)
    }

    /// Writes aside and renames: whoever finds the file finds all of it.
    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let aside = self.path.join(format!(".{name}"));
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&aside)
            .and_then(|mut file| file.write_all(text))
            .and_then(|()| std::fs::rename(&aside, &path))
            .with_context(|| format!("write {path:?}"))
    }
}

/// The group of the host that is group 0 of the container's user namespace, if it has one.
fn remapped_root(spec: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    struct Linux {
        #[serde(default, rename = "gidMappings")]
        gid_mappings: Option<Vec<Mapping>>,
    }
    #[derive(Deserialize)]
    struct Mapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
        size: u32,
    }
    // A specification that does not parse is refused by the shim, with a better text.
    let mappings = serde_json::from_slice::<Spec>(spec).ok()?.linux?.gid_mappings?;
    let root = mappings.iter().find(|mapping| mapping.container_id == 0 && mapping.size > 0)?;
    (root.host_id != 0).then_some(root.host_id)
}

fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o711)))
        .with_context(|| format!("make {dir:?}"))
}

fn new_dir(dir: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .mode(mode)
        .create(dir)
        // The umask may have taken some.
        .and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(mode)))
        .with_context(|| format!("make {dir:?}"))
}

/// Removes a directory and all in it; symbolic links are removed, not followed. None there is success.
fn remove_tree(path: &Path) -> Result<()> {
    // A root file system that is still mounted below must survive.
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    gantry_mount::unmount_recursive(path, Busy::Detach).with_context(|| format!("unmount below {path:?}"))?;
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {path:?}"))
        }
        _ => Ok(()),
    }
}

/// The names of the directories in `dir`; those that are not UTF-8 are none of ours.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("read {dir:?}"))?;
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn bundle(dir: &Path, id: &str) -> (Bundles, Bundle) {
        let bundles = Bundles::of_tasks(&dir.join("state"), &dir.join("root")).unwrap();
        let bundle = bundles.bundle(&Namespace::parse("n").unwrap(), &ContainerId::parse(id).unwrap());
        (bundles, bundle)
    }

    #[test]
    fn a_bundle_is_closed_to_others_and_deleted_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (bundles, web) = bundle(dir.path(), "web");
        web.create(Some(b"{}"), "pod").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&web.path), 0o700);
        assert_eq!(mode(&web.path.join(CONFIG)), 0o600);
        assert_eq!(std::fs::read_link(web.path.join(WORK)).unwrap(), web.work);
        assert!(web.is_whole());
        assert_eq!(web.create(Some(b"{}"), "").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(bundles.list().unwrap().len(), 1);
        web.delete().unwrap();
        web.delete().unwrap();
        assert!(!web.path.exists() && !web.work.exists());
        assert!(bundles.list().unwrap().is_empty());
    }

    #[test]
    fn remains_and_orphans_are_removed_and_strangers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (bundles, web) = bundle(dir.path(), "web");
        web.create(Some(b"{}"), "").unwrap();
        let hidden = web.path.with_file_name(".web");
        std::fs::rename(&web.path, &hidden).unwrap();
        let strange = web.path.with_file_name("not an id");
        std::fs::create_dir(&strange).unwrap();
        assert!(bundles.list().unwrap().is_empty());
        assert!(!hidden.exists() && !web.work.exists() && strange.exists());
    }

    #[test]
    fn deleting_does_not_follow_links() {
        let dir = tempfile::tempdir().unwrap();
        let (_, web) = bundle(dir.path(), "web");
        web.create(Some(b"{}"), "").unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        std::fs::remove_dir(web.rootfs()).unwrap();
        std::os::unix::fs::symlink(&kept, web.rootfs()).unwrap();
        web.delete().unwrap();
        assert!(kept.join("file").exists() && !web.path.exists());
    }

    #[test]
    fn what_a_shim_answered_is_read_back_in_either_form() {
        let dir = tempfile::tempdir().unwrap();
        let (_, web) = bundle(dir.path(), "web");
        web.create(Some(b"{}"), "").unwrap();
        assert!(web.shim().is_err());
        web.write(ADDRESS, b"unix:///run/s/old\n").unwrap();
        assert_eq!(web.shim().unwrap().address, "unix:///run/s/old");
        let answer = Answer { version: 3, address: "unix:///run/s/x".into(), protocol: "ttrpc".into() };
        web.write_shim(Path::new("/bin/shim"), &answer).unwrap();
        assert_eq!((web.shim().unwrap(), web.shim_binary().unwrap()), (answer, "/bin/shim".into()));
    }

    #[test]
    fn a_user_namespace_opens_the_bundle_for_its_group() {
        assert_eq!(
            remapped_root(br#"{"linux":{"gidMappings":[{"containerID":0,"hostID":7,"size":1}]}}"#),
            Some(7)
        );
        assert_eq!(
            remapped_root(br#"{"linux":{"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}}"#),
            None
        );
        assert_eq!(remapped_root(b"{"), None);
    }
}
