//! Serves introspection. All methods are of class (c) and need no namespace.

use std::sync::Arc;

use gantry_api::containerd::services::introspection::v1 as pb;
use gantry_core::introspection::Introspection;
use tonic::{Request, Response, Status};

use super::convert::{plugin_to_proto, server_to_proto};
use crate::call::attend_unscoped;
use crate::message::answer;
use crate::{any, to_status};

/// Serves what `inner` tells.
pub struct GrpcIntrospection {
    inner: Arc<dyn Introspection>,
}

impl GrpcIntrospection {
    /// Serves `inner`.
    pub fn new(inner: Arc<dyn Introspection>) -> Self {
        GrpcIntrospection { inner }
    }
}

#[tonic::async_trait]
impl pb::introspection_server::Introspection for GrpcIntrospection {
    async fn plugins(
        &self,
        req: Request<pb::PluginsRequest>,
    ) -> Result<Response<pb::PluginsResponse>, Status> {
        let (cx, _left, req) = attend_unscoped(req);
        let plugins = self.inner.plugins(&cx, &req.filters).await.map_err(to_status)?;
        answer(pb::PluginsResponse { plugins: plugins.into_iter().map(plugin_to_proto).collect() })
    }

    async fn server(&self, req: Request<()>) -> Result<Response<pb::ServerResponse>, Status> {
        let (cx, _left, ()) = attend_unscoped(req);
        answer(server_to_proto(self.inner.server(&cx).await.map_err(to_status)?))
    }

    async fn plugin_info(
        &self,
        req: Request<pb::PluginInfoRequest>,
    ) -> Result<Response<pb::PluginInfoResponse>, Status> {
        let (cx, _left, req) = attend_unscoped(req);
        let options = req.options.map(any::from_proto);
        let details = self.inner.plugin_info(&cx, &req.r#type, &req.id, options).await.map_err(to_status)?;
        answer(pb::PluginInfoResponse {
            plugin: Some(plugin_to_proto(details.plugin)),
            extra: details.extra.map(any::to_proto),
        })
    }
}
