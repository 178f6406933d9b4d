//! Asks a daemon what it is made of.

use gantry_api::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use gantry_api::containerd::services::introspection::v1::{PluginInfoRequest, PluginsRequest};
use gantry_core::introspection::{Introspection, PluginDetails, PluginRecord, ServerRecord};
use gantry_core::{Any, Context, Result};
use tonic::transport::Channel;

use super::convert::{plugin_from_proto, server_from_proto};
use crate::any;
use crate::remote::{answered, ask, remote};

remote! {
    /// A daemon's introspection.
    RemoteIntrospection, IntrospectionClient<Channel>
}

#[async_trait::async_trait]
impl Introspection for RemoteIntrospection {
    async fn plugins(&self, cx: &Context, filters: &[String]) -> Result<Vec<PluginRecord>> {
        let answer = ask!(self.plugins(cx, PluginsRequest { filters: filters.to_vec() }));
        Ok(answer.plugins.into_iter().map(plugin_from_proto).collect())
    }

    async fn server(&self, cx: &Context) -> Result<ServerRecord> {
        Ok(server_from_proto(ask!(self.server(cx, ()))))
    }

    async fn plugin_info(
        &self,
        cx: &Context,
        kind: &str,
        id: &str,
        options: Option<Any>,
    ) -> Result<PluginDetails> {
        let request = PluginInfoRequest {
            r#type: kind.to_owned(),
            id: id.to_owned(),
            options: options.map(any::to_proto),
        };
        let answer = ask!(self.plugin_info(cx, request));
        Ok(PluginDetails {
            plugin: plugin_from_proto(answered(answer.plugin, "plugin")?),
            extra: answer.extra.map(any::from_proto),
        })
    }
}
