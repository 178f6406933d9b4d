//! Namespaces of a daemon elsewhere.

use gantry_api::containerd::services::namespaces::v1 as pb;
use gantry_core::field_mask::FieldMask;
use gantry_core::namespaces::{NamespaceRecord, NamespaceStore};
use gantry_core::{Context, Labels, Namespace, Result};
use tonic::transport::Channel;

use super::convert::{from_proto, to_proto};
use crate::field_mask;
use crate::remote::{ask, remote};

remote! {
    /// A namespace store elsewhere.
    RemoteNamespaces, pb::namespaces_client::NamespacesClient<Channel>
}

#[async_trait::async_trait]
impl NamespaceStore for RemoteNamespaces {
    async fn create(&self, cx: &Context, new: NamespaceRecord) -> Result<NamespaceRecord> {
        let request = pb::CreateNamespaceRequest { namespace: Some(to_proto(new)) };
        from_proto(ask!(self.create(cx, request)).namespace)
    }

    async fn labels(&self, cx: &Context, name: &str) -> Result<Labels> {
        let request = pb::GetNamespaceRequest { name: name.to_owned() };
        Ok(ask!(self.get(cx, request)).namespace.unwrap_or_default().labels)
    }

    async fn list(&self, cx: &Context) -> Result<Vec<NamespaceRecord>> {
        let answer = ask!(self.list(cx, pb::ListNamespacesRequest::default()));
        answer.namespaces.into_iter().map(|namespace| from_proto(Some(namespace))).collect()
    }

    async fn update(
        &self,
        cx: &Context,
        changed: NamespaceRecord,
        mask: &FieldMask,
    ) -> Result<NamespaceRecord> {
        let name = changed.name.clone();
        let request = pb::UpdateNamespaceRequest {
            namespace: Some(to_proto(changed)),
            update_mask: field_mask::to_proto(mask),
        };
        ask!(self.update(cx, request));
        // The answer has no namespace in it.
        let labels = self.labels(cx, name.as_str()).await?;
        Ok(NamespaceRecord { name, labels })
    }

    async fn delete(&self, cx: &Context, name: &Namespace) -> Result<()> {
        ask!(self.delete(cx, pb::DeleteNamespaceRequest { name: name.to_string() }));
        Ok(())
    }
}
