//! Starting plugins: what each may take and put, and how it went.

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_core::{Error, ErrorKind, Result};

use crate::{Plugin, PluginKind, order};

/// Why a plugin did not start.
#[derive(Debug)]
pub enum InitError {
    /// It is not meant to run here, or was not asked to; the text says why.
    Skip(String),
    /// It should have started, and could not.
    Failed(Error),
}

impl From<Error> for InitError {
    fn from(error: Error) -> Self {
        InitError::Failed(error)
    }
}

impl InitError {
    /// The error that introspection publishes. Source: containerd marks skipped plugins by the code
    /// `UNIMPLEMENTED` and the last words `skip plugin`, all other failures by `UNKNOWN`.
    pub fn published(&self) -> Error {
        match self {
            InitError::Skip(why) => {
                Error::from_status(ErrorKind::Unimplemented.code(), &format!("{why}: skip plugin"))
            }
            InitError::Failed(error) => Error::from_status(ErrorKind::Unknown.code(), &error.message()),
        }
    }
}

/// What the program gives to every plugin.
#[derive(Default)]
pub struct Environment {
    /// The daemon's root directory; each plugin gets `<root>/<kind>.<id>` below it.
    pub root: PathBuf,
    /// The daemon's state directory; each plugin gets `<state>/<kind>.<id>` below it.
    pub state: PathBuf,
    /// `kind.id` of plugins that are left out.
    pub disabled: Vec<String>,
    /// `kind.id` of plugins without which the program does not run.
    pub required: Vec<String>,
    shared: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl Environment {
    /// Offers `value` to every plugin, by its type.
    pub fn share<T: Any + Send + Sync>(&mut self, value: T) {
        self.shared.insert(TypeId::of::<T>(), Box::new(value));
    }
}

type Slot = Box<dyn Any + Send + Sync>;

struct Offer {
    kind: PluginKind,
    id: String,
    of: TypeId,
    slot: Slot,
}

/// A plugin after the attempt to start it.
#[derive(Debug)]
pub struct LoadedPlugin {
    /// What it is.
    pub kind: PluginKind,
    /// Its id within the kind.
    pub id: String,
    /// The kinds it needs.
    pub requires: Vec<PluginKind>,
    /// What it tells about itself.
    pub exports: BTreeMap<String, String>,
    /// What it can do besides.
    pub capabilities: Vec<String>,
    /// Why it did not start, if it did not.
    pub error: Option<InitError>,
}

/// Everything that was started, in that order.
#[derive(Default)]
pub struct Loaded {
    /// Every plugin that is not disabled.
    pub plugins: Vec<LoadedPlugin>,
    offers: Vec<Offer>,
}

impl Loaded {
    /// What the plugin `id` of `kind` put as a `T`.
    pub fn by_id<T: ?Sized + Send + Sync + 'static>(&self, kind: PluginKind, id: &str) -> Option<Arc<T>> {
        self.all::<T>(kind).into_iter().find(|(name, _)| name == id).map(|(_, offer)| offer)
    }

    /// Everything that plugins of `kind` put as a `T`, with their ids.
    pub fn all<T: ?Sized + Send + Sync + 'static>(&self, kind: PluginKind) -> Vec<(String, Arc<T>)> {
        self.offers
            .iter()
            .filter(|offer| offer.kind == kind && offer.of == TypeId::of::<T>())
            .filter_map(|offer| Some((offer.id.clone(), Arc::clone(offer.slot.downcast_ref::<Arc<T>>()?))))
            .collect()
    }
}

/// What a plugin sees while it starts.
pub struct InitContext<'a> {
    environment: &'a Environment,
    plugin: &'a Plugin,
    loaded: &'a mut Loaded,
    exports: BTreeMap<String, String>,
    capabilities: Vec<String>,
}

impl InitContext<'_> {
    /// The plugin's own directory for what must last.
    pub fn root(&self) -> PathBuf {
        self.environment.root.join(self.plugin.uri())
    }

    /// The plugin's own directory for what a reboot may take.
    pub fn state(&self) -> PathBuf {
        self.environment.state.join(self.plugin.uri())
    }

    /// The daemon's root directory itself.
    pub fn daemon_root(&self) -> &Path {
        &self.environment.root
    }

    /// What the program shares with all plugins.
    ///
    /// # Errors
    /// `Internal` if the program shares no such value.
    pub fn shared<T: Any + Send + Sync>(&self) -> Result<&T> {
        self.environment
            .shared
            .get(&TypeId::of::<T>())
            .and_then(|value| value.downcast_ref())
            .ok_or_else(|| Error::internal(format!("the program shares no {}", type_name::<T>())))
    }

    /// What a plugin of `kind` put as a `T`; the first of them.
    ///
    /// # Errors
    /// `NotFound` if none did, with the reason if one of the kind failed.
    pub fn get<T: ?Sized + Send + Sync + 'static>(&self, kind: PluginKind) -> Result<Arc<T>> {
        if let Some((_, offer)) = self.loaded.all::<T>(kind).into_iter().next() {
            return Ok(offer);
        }
        let failed = self.loaded.plugins.iter().filter(|plugin| plugin.kind == kind);
        let reason = failed
            .filter_map(|plugin| {
                Some(format!("{}.{}: {}", plugin.kind, plugin.id, plugin.error.as_ref()?.published()))
            })
            .next();
        Err(Error::not_found(match reason {
            Some(reason) => format!("no plugin of kind {kind} offers {}; {reason}", type_name::<T>()),
            None => format!("no plugin of kind {kind} offers {}", type_name::<T>()),
        }))
    }

    /// Everything that plugins of `kind` put as a `T`, with their ids.
    pub fn all<T: ?Sized + Send + Sync + 'static>(&self, kind: PluginKind) -> Vec<(String, Arc<T>)> {
        self.loaded.all(kind)
    }

    /// Offers `offer` under the plugin's own id.
    pub fn put<T: ?Sized + Send + Sync + 'static>(&mut self, kind: PluginKind, offer: Arc<T>) {
        let id = self.plugin.id.to_owned();
        self.put_as(kind, &id, offer);
    }

    /// Offers `offer` under another id: for a plugin that makes one object for each plugin it requires.
    pub fn put_as<T: ?Sized + Send + Sync + 'static>(&mut self, kind: PluginKind, id: &str, offer: Arc<T>) {
        self.loaded.offers.push(Offer {
            kind,
            id: id.to_owned(),
            of: TypeId::of::<T>(),
            slot: Box::new(offer),
        });
    }

    /// Publishes a fact about the plugin.
    pub fn export(&mut self, key: &str, value: impl Into<String>) {
        self.exports.insert(key.to_owned(), value.into());
    }

    /// Publishes what the plugin can do besides.
    pub fn capability(&mut self, capability: impl Into<String>) {
        self.capabilities.push(capability.into());
    }

    /// Every plugin started so far.
    pub fn plugins(&self) -> &[LoadedPlugin] {
        &self.loaded.plugins
    }
}

/// Starts `plugins` in dependency order.
///
/// # Errors
/// `InvalidArgument` if the list makes no sense; the plugin's own error if one that is required does not start, or
/// `NotFound` if it is not in the list.
pub fn load(plugins: &[&Plugin], environment: &Environment) -> Result<Loaded> {
    for uri in &environment.required {
        if !plugins.iter().any(|plugin| plugin.uri() == *uri) || environment.disabled.contains(uri) {
            // Source: features A71, the original's words.
            return Err(Error::not_found(format!("required plugin [{uri}] not included")));
        }
    }
    let enabled: Vec<&Plugin> =
        plugins.iter().copied().filter(|plugin| !environment.disabled.contains(&plugin.uri())).collect();
    let mut loaded = Loaded::default();
    for index in order(&enabled)? {
        let plugin = enabled[index];
        let offers_before = loaded.offers.len();
        let mut context = InitContext {
            environment,
            plugin,
            loaded: &mut loaded,
            exports: BTreeMap::new(),
            capabilities: Vec::new(),
        };
        let outcome = (plugin.init)(&mut context);
        let (exports, capabilities) = (context.exports, context.capabilities);
        if outcome.is_err() {
            loaded.offers.truncate(offers_before);
            if environment.required.contains(&plugin.uri()) {
                let error = outcome.as_ref().expect_err("checked just above").published();
                return Err(error.context(format!("load required plugin {}", plugin.uri())));
            }
        }
        loaded.plugins.push(LoadedPlugin {
            kind: plugin.kind,
            id: plugin.id.to_owned(),
            requires: plugin.requires.to_vec(),
            exports,
            capabilities,
            error: outcome.err(),
        });
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    trait Greets: Send + Sync {
        fn greet(&self) -> String;
    }

    struct Plain;

    impl Greets for Plain {
        fn greet(&self) -> String {
            "hello".into()
        }
    }

    const EVENT: Plugin = Plugin {
        kind: PluginKind::Event,
        id: "exchange",
        requires: &[],
        init: |ic| {
            ic.put::<dyn Greets>(PluginKind::Event, Arc::new(Plain));
            ic.export("root", "/x");
            Ok(())
        },
    };
    const SERVICE: Plugin = Plugin {
        kind: PluginKind::Service,
        id: "s",
        requires: &[PluginKind::Event],
        init: |ic| {
            assert_eq!(ic.get::<dyn Greets>(PluginKind::Event)?.greet(), "hello");
            ic.put::<u32>(PluginKind::Service, Arc::new(1));
            Ok(())
        },
    };
    const BROKEN: Plugin = Plugin {
        kind: PluginKind::Metadata,
        id: "bolt",
        requires: &[],
        init: |_| Err(Error::resource_exhausted("disk").into()),
    };
    const NEEDS_BROKEN: Plugin = Plugin {
        kind: PluginKind::Gc,
        id: "scheduler",
        requires: &[PluginKind::Metadata],
        init: |ic| {
            ic.get::<dyn Greets>(PluginKind::Metadata)?;
            Ok(())
        },
    };

    #[test]
    fn plugins_start_after_what_they_require() {
        let loaded = load(&[&SERVICE, &EVENT], &Environment::default()).unwrap();
        let ids: Vec<_> = loaded.plugins.iter().map(|plugin| plugin.id.as_str()).collect();
        assert_eq!(ids, ["exchange", "s"]);
        assert!(loaded.plugins.iter().all(|plugin| plugin.error.is_none()));
        assert_eq!(loaded.plugins[0].exports["root"], "/x");
    }

    #[test]
    fn a_failed_plugin_stops_only_those_that_need_it() {
        let loaded = load(&[&NEEDS_BROKEN, &BROKEN, &SERVICE, &EVENT], &Environment::default()).unwrap();
        let failed: Vec<_> = loaded
            .plugins
            .iter()
            .filter(|plugin| plugin.error.is_some())
            .map(|plugin| plugin.id.as_str())
            .collect();
        assert_eq!(failed, ["bolt", "scheduler"]);
        let published = loaded.plugins[1].error.as_ref().unwrap().published();
        assert!(published.to_string().contains("disk: resource exhausted"), "{published}");
    }

    #[test]
    fn a_required_plugin_that_fails_ends_the_program() {
        let mut environment = Environment::default();
        environment.required.push("io.containerd.metadata.v1.bolt".into());
        let error = load(&[&BROKEN], &environment).err().unwrap();
        assert!(
            error.to_string().starts_with("load required plugin io.containerd.metadata.v1.bolt"),
            "{error}"
        );
        environment.required = vec!["io.containerd.grpc.v1.nothing".into()];
        let error = load(&[&BROKEN], &environment).err().unwrap();
        assert!(error.to_string().contains("required plugin [io.containerd.grpc.v1.nothing] not included"));
    }

    #[test]
    fn a_disabled_plugin_vanishes() {
        let mut environment = Environment::default();
        environment.disabled.push("io.containerd.event.v1.exchange".into());
        let loaded = load(&[&SERVICE, &EVENT], &environment).unwrap();
        assert_eq!(loaded.plugins.len(), 1);
        assert!(loaded.plugins[0].error.is_some());
    }

    #[test]
    fn a_circle_is_refused() {
        const A: Plugin =
            Plugin { kind: PluginKind::Gc, id: "a", requires: &[PluginKind::Lease], init: |_| Ok(()) };
        const B: Plugin =
            Plugin { kind: PluginKind::Lease, id: "b", requires: &[PluginKind::Gc], init: |_| Ok(()) };
        assert!(load(&[&A, &B], &Environment::default()).is_err());
    }
}
