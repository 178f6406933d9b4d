//! Plugins and the server's record.

use gantry_api::containerd::services::introspection::v1::{DeprecationWarning, Plugin, ServerResponse};
use gantry_api::google::rpc::Status;
use gantry_core::Error;
use gantry_core::introspection::{DeprecationWarning as Warning, PluginRecord, ServerRecord};

use crate::{platform, timestamp};

pub(crate) fn plugin_to_proto(plugin: PluginRecord) -> Plugin {
    Plugin {
        r#type: plugin.kind,
        id: plugin.id,
        requires: plugin.requires,
        platforms: plugin.platforms.into_iter().map(platform::to_proto).collect(),
        exports: plugin.exports,
        capabilities: plugin.capabilities,
        init_err: plugin.init_error.map(|error| Status {
            code: error.kind().code(),
            message: error.message(),
            details: Vec::new(),
        }),
    }
}

pub(crate) fn server_to_proto(server: ServerRecord) -> ServerResponse {
    let deprecations = server.deprecations.into_iter().map(|warning| DeprecationWarning {
        id: warning.id,
        message: warning.message,
        last_occurrence: Some(timestamp::to_proto(warning.last_occurrence)),
    });
    ServerResponse {
        uuid: server.uuid,
        pid: server.pid,
        pidns: server.pidns,
        deprecations: deprecations.collect(),
    }
}

pub(crate) fn plugin_from_proto(plugin: Plugin) -> PluginRecord {
    PluginRecord {
        kind: plugin.r#type,
        id: plugin.id,
        requires: plugin.requires,
        platforms: plugin.platforms.into_iter().map(platform::from_proto).collect(),
        exports: plugin.exports,
        capabilities: plugin.capabilities,
        init_error: plugin.init_err.map(|status| Error::from_status(status.code, &status.message)),
    }
}

pub(crate) fn server_from_proto(server: ServerResponse) -> ServerRecord {
    let deprecations = server.deprecations.into_iter().map(|warning| Warning {
        id: warning.id,
        message: warning.message,
        last_occurrence: timestamp::or_epoch(warning.last_occurrence),
    });
    ServerRecord {
        uuid: server.uuid,
        pid: server.pid,
        pidns: server.pidns,
        deprecations: deprecations.collect(),
    }
}
