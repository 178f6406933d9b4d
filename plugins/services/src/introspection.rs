//! Introspection: the plugins as they were started, and the daemon itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use gantry_core::filters::{Adaptor, Filters};
use gantry_core::introspection::{
    DeprecationWarning, Introspection, PluginDetails, PluginRecord, ServerRecord,
};
use gantry_core::tasks::TaskRuntime;
use gantry_core::{Any, Context, Error, Result, ResultExt as _};

/// The plugins, known once all of them were started.
#[derive(Default)]
pub struct PluginList {
    plugins: OnceLock<Vec<PluginRecord>>,
}

impl PluginList {
    /// Tells the outcome of the start. Only the first call counts.
    pub fn set(&self, plugins: Vec<PluginRecord>) {
        // A second start does not happen; if it did, the first answer stays true for those who have seen it.
        let _ = self.plugins.set(plugins);
    }

    fn all(&self) -> &[PluginRecord] {
        self.plugins.get().map(Vec::as_slice).unwrap_or_default()
    }
}

/// The introspection service.
pub struct IntrospectionService {
    list: Arc<PluginList>,
    uuid_file: PathBuf,
    deprecations: Vec<DeprecationWarning>,
    runtime: OnceLock<Arc<dyn TaskRuntime>>,
}

impl IntrospectionService {
    /// The service; the daemon's uuid is kept in `root`.
    pub fn new(list: Arc<PluginList>, root: &Path, deprecations: Vec<DeprecationWarning>) -> Self {
        IntrospectionService { list, uuid_file: root.join("uuid"), deprecations, runtime: OnceLock::new() }
    }

    /// Lets the runtime speak for itself in [`Introspection::plugin_info`]. It is started after this service, which does not
    /// require it; only the first call counts.
    pub fn set_runtime(&self, runtime: Arc<dyn TaskRuntime>) {
        // As for the list: what was told first stays.
        let _ = self.runtime.set(runtime);
    }

    /// The uuid of this root directory, made at the first call.
    fn uuid(&self) -> Result<String> {
        let path = &self.uuid_file;
        let wrong = |step: &str, error| Error::io(error).context(format!("{step} {}", path.display()));
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().len() == 36 => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong("read", error)),
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| wrong("create the directory of", error))?;
        }
        let uuid = new_uuid();
        let aside = path.with_extension("new");
        std::fs::File::create(&aside)
            .and_then(|mut file| file.write_all(uuid.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&aside, path))
            .map_err(|error| wrong("write", error))?;
        Ok(uuid)
    }
}

/// A random uuid. Source: RFC 9562, section 5.4.
fn new_uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A plugin as filters see it. Source: features E27: platforms and capabilities are not adapted.
struct Filterable<'a>(&'a PluginRecord);

impl Adaptor for Filterable<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["type"] => Some(self.0.kind.clone()),
            ["id"] => Some(self.0.id.clone()),
            _ => None,
        }
    }
}

fn copy(record: &PluginRecord) -> PluginRecord {
    PluginRecord {
        kind: record.kind.clone(),
        id: record.id.clone(),
        requires: record.requires.clone(),
        platforms: record.platforms.clone(),
        exports: record.exports.clone(),
        capabilities: record.capabilities.clone(),
        init_error: record
            .init_error
            .as_ref()
            .map(|error| Error::from_status(error.kind().code(), &error.message())),
    }
}

#[async_trait]
impl Introspection for IntrospectionService {
    async fn plugins(&self, _cx: &Context, filters: &[String]) -> Result<Vec<PluginRecord>> {
        let filters = Filters::parse(filters)?;
        Ok(self.list.all().iter().filter(|plugin| filters.matches(&Filterable(plugin))).map(copy).collect())
    }

    async fn server(&self, _cx: &Context) -> Result<ServerRecord> {
        use std::os::unix::fs::MetadataExt as _;
        let pidns = std::fs::metadata("/proc/self/ns/pid").context("read /proc/self/ns/pid")?.ino();
        Ok(ServerRecord {
            uuid: self.uuid()?,
            pid: u64::from(std::process::id()),
            pidns,
            deprecations: self.deprecations.clone(),
        })
    }

    async fn plugin_info(
        &self,
        cx: &Context,
        kind: &str,
        id: &str,
        options: Option<Any>,
    ) -> Result<PluginDetails> {
        let plugin = self
            .list
            .all()
            .iter()
            .find(|plugin| plugin.kind == kind && plugin.id == id)
            .map(copy)
            .ok_or_else(|| Error::not_found(format!("plugin {kind}.{id}")))?;
        let extra = match self.runtime.get() {
            // Source: features B146: the task plugin answers by asking the shim.
            Some(runtime) if kind == "io.containerd.runtime.v2" && id == "task" => {
                Some(runtime.runtime_info(cx, options).await?)
            }
            _ if options.is_some() => {
                return Err(Error::unimplemented(format!("plugin {kind}.{id} takes no options")));
            }
            _ => None,
        };
        Ok(PluginDetails { plugin, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_uuid_is_made_once_per_root() {
        let root = tempfile::tempdir().unwrap();
        let open = || IntrospectionService::new(Arc::default(), root.path(), Vec::new());
        let cx = Context::background();
        let first = open().server(&cx).await.unwrap();
        assert_eq!(first.uuid.len(), 36);
        assert_eq!(open().server(&cx).await.unwrap().uuid, first.uuid);
        assert_eq!(first.pid, u64::from(std::process::id()));
    }
}
