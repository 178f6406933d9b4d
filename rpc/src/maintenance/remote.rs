//! Looks after the store of a daemon elsewhere.

use gantry_api::gantry::services::maintenance::v1 as pb;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions};
use gantry_core::maintenance::{Collected, Doomed, Explanation, Maintenance, ObjectName};
use gantry_core::{Context, ItemStream, Result};
use tonic::transport::Channel;

use super::convert::{
    collected_from_proto, doomed_from_proto, event_from_proto, explanation_from_proto, object_to_proto,
};
use crate::remote::{ask, items, remote};

remote! {
    /// The maintenance of a daemon elsewhere.
    RemoteMaintenance, pb::maintenance_client::MaintenanceClient<Channel>
}

#[async_trait::async_trait]
impl Maintenance for RemoteMaintenance {
    async fn explain(&self, cx: &Context, object: &ObjectName) -> Result<Explanation> {
        let object = Some(object_to_proto(object.clone()));
        explanation_from_proto(ask!(self.explain(cx, pb::ExplainRequest { object })))
    }

    async fn preview(&self, cx: &Context) -> Result<ItemStream<Doomed>> {
        let messages = ask!(self.what_would_go(cx, pb::WhatWouldGoRequest {}));
        Ok(items(messages, |message| message.objects.into_iter().map(doomed_from_proto)))
    }

    async fn collect(&self, cx: &Context) -> Result<Collected> {
        Ok(collected_from_proto(ask!(self.collect(cx, pb::CollectRequest {}))))
    }

    async fn check(&self, cx: &Context, options: CheckOptions) -> Result<ItemStream<CheckEvent>> {
        let CheckOptions { deep, repair } = options;
        let messages = ask!(self.check(cx, pb::CheckRequest { deep, repair }));
        Ok(items(messages, |message| Some(event_from_proto(message))))
    }
}
