//! The event exchange, and the warnings about what will go away.

use std::sync::Arc;
use std::time::SystemTime;

use gantry_core::events::{EventPublisher, EventService};
use gantry_core::introspection::DeprecationWarning;
use gantry_events::EventExchange;
use gantry_plugin::{Plugin, PluginKind};

/// The exchange.
pub(super) const EXCHANGE: Plugin = Plugin {
    kind: PluginKind::Event,
    id: "exchange",
    requires: &[],
    init: |ic| {
        let exchange = Arc::new(EventExchange::new());
        ic.put::<dyn EventPublisher>(PluginKind::Event, Arc::<EventExchange>::clone(&exchange));
        ic.put::<dyn EventService>(PluginKind::Event, exchange);
        Ok(())
    },
};

/// What is in use here and will go away.
pub(super) const DEPRECATIONS: Plugin = Plugin {
    kind: PluginKind::Warning,
    id: "deprecations",
    requires: &[],
    init: |ic| {
        let mut warnings = Vec::new();
        if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            // Source: features C43.
            warnings.push(DeprecationWarning {
                id: "io.containerd.deprecation/cgroup-v1".to_owned(),
                message: "The support for cgroup v1 is deprecated; boot the node with cgroup v2".to_owned(),
                last_occurrence: SystemTime::now(),
            });
        }
        ic.put::<Vec<DeprecationWarning>>(PluginKind::Warning, Arc::new(warnings));
        Ok(())
    },
};
