//! Plugins and the server's record.

use gantry_api::containerd::services::introspection::v1::{DeprecationWarning, Plugin, ServerResponse};
use gantry_api::google::rpc::Status;
use gantry_core::introspection::{PluginRecord, ServerRecord};

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
