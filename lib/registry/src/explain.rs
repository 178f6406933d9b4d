//! Why a registry is asked where it is: for people whose mirror is not used.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_core::Result;
use gantry_oci::Reference;

use crate::hosts::{Capabilities, HostPlan};
use crate::transport::HostClient;

/// What a registry is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Finding out which digest a tag has.
    Resolve,
    /// Fetching content by digest.
    Pull,
    /// Storing content.
    Push,
    /// Listing what refers to a manifest.
    Referrers,
}

impl Operation {
    /// Whether a host with `capabilities` may be asked.
    pub fn allowed(self, capabilities: Capabilities) -> bool {
        match self {
            Operation::Resolve => capabilities.resolve && capabilities.pull,
            Operation::Pull => capabilities.pull,
            Operation::Push => capabilities.push,
            Operation::Referrers => capabilities.referrers,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Resolve => "resolve",
            Operation::Pull => "pull",
            Operation::Push => "push",
            Operation::Referrers => "list referrers",
        })
    }
}

/// Which hosts are asked, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked about.
    pub reference: String,
    /// What for.
    pub operation: Operation,
    /// The directories that were looked for; the first that exists counts.
    pub looked_for: Vec<PathBuf>,
    /// The one that counts, if any does.
    pub directory: Option<PathBuf>,
    /// The hosts, in the order of the configuration.
    pub hosts: Vec<ExplainedHost>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// One host of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedHost {
    /// Where it is.
    pub url: String,
    /// Whether it is asked for this operation.
    pub used: bool,
    /// Why, or why not.
    pub reason: String,
    /// Whether it is the registry itself rather than a mirror.
    pub is_origin: bool,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// Files with certificates to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// Files with certificates that we show.
    pub client_certificates: Vec<PathBuf>,
    /// Whether anybody is believed to be it.
    pub skip_verify: bool,
    /// Names of the headers it is sent; their values may be secret.
    pub headers: Vec<String>,
    /// Whether there are credentials for it; an error if that cannot be found out.
    pub credentials: std::result::Result<bool, String>,
}

pub(crate) async fn explain(
    plan: &HostPlan,
    clients: &[Arc<HostClient>],
    reference: &Reference,
    operation: Operation,
) -> Result<Explanation> {
    let mut hosts = Vec::with_capacity(clients.len());
    let mut place = 0;
    for client in clients {
        let host = &client.host;
        let used = operation.allowed(host.capabilities);
        let what = if host.is_origin { "the registry itself" } else { "a mirror" };
        let how = match (host.plain_fallback, host.tls.skip_verify) {
            (true, _) => ", in TLS first and then in plain HTTP",
            (false, Some(true)) if host.scheme == crate::hosts::Scheme::Https => {
                ", its certificate is not checked"
            }
            _ => "",
        };
        let reason = if used {
            place += 1;
            format!("number {place}: {what}{how}")
        } else {
            format!("not asked: {what} without the capability to {operation}")
        };
        hosts.push(ExplainedHost {
            url: host.url(),
            used,
            reason,
            is_origin: host.is_origin,
            capabilities: host.capabilities,
            ca: host.tls.ca.clone(),
            client_certificates: host.tls.client.iter().map(|(certificate, _)| certificate.clone()).collect(),
            skip_verify: host.tls.skip_verify == Some(true),
            headers: host.headers.keys().map(ToString::to_string).collect(),
            credentials: client.has_credentials().await.map_err(|error| error.to_string()),
        });
    }
    Ok(Explanation {
        reference: reference.to_string(),
        operation,
        looked_for: plan.looked_for.clone(),
        directory: plan.directory.clone(),
        hosts,
        warnings: plan.warnings.clone(),
    })
}
