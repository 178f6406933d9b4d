//! [`Registry`], which holds the options, and [`Repository`], through which one image's repository is used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_core::{Descriptor, Error, ErrorKind, Result, ResultExt};
use gantry_oci::Reference;
use http::Method;
use rustls::RootCertStore;
use tokio::sync::OnceCell;

use crate::authorizer::Scopes;
use crate::credentials::{Anonymous, CredentialSource};
use crate::explain::{self, Explanation, Operation};
use crate::hosts::{self, HostPlan, HostsOptions};
use crate::proxy::ProxySettings;
use crate::stall::StallRule;
use crate::transport::{Ask, HostClient, Settings};

/// How long each step may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting, with TLS, where the configuration names no `dial_timeout`. 30 seconds by default.
    pub dial: Duration,
    /// From a request to its answer's head, and for a whole small answer. 60 seconds by default.
    pub answer: Duration,
    /// When a connection that sends a blob is given up.
    pub stall: StallRule,
    /// How many connections in a row may bring less of a blob than the stall rule wants before it fails. 5 by default.
    pub fruitless_connections: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            dial: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            stall: StallRule::default(),
            fruitless_connections: 5,
        }
    }
}

/// What a [`Registry`] is made from.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Where hosts are configured.
    pub hosts: HostsOptions,
    /// Where credentials come from; nowhere by default.
    pub credentials: Arc<dyn CredentialSource>,
    /// Which proxies are used; none by default. See [`ProxySettings::from_environment`].
    pub proxy: ProxySettings,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What we call ourselves.
    pub user_agent: String,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions {
            hosts: HostsOptions::default(),
            credentials: Arc::new(Anonymous),
            proxy: ProxySettings::default(),
            timeouts: Timeouts::default(),
            user_agent: concat!("gantry/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Access to registries, with one set of options. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    options: RegistryOptions,
    /// The system's certificates, read when first needed.
    roots: OnceCell<Arc<RootCertStore>>,
}

impl Registry {
    /// Takes the options. Nothing is read or asked yet.
    pub fn new(options: RegistryOptions) -> Self {
        Registry { inner: Arc::new(Inner { options, roots: OnceCell::new() }) }
    }

    async fn plan(&self, reference: &Reference) -> Result<HostPlan> {
        let options = self.inner.options.hosts.clone();
        let registry = reference.host().to_owned();
        blocking(move || hosts::plan(&registry, &options)).await.context("hosts configuration")
    }

    /// Reads the configuration for the registry of `reference` and prepares to use its repository.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration that cannot be used; those of reading it.
    pub async fn repository(&self, reference: &Reference) -> Result<Repository> {
        let step = || format!("repository {}", reference.name());
        let plan = self.plan(reference).await.with_context(step)?;
        let roots = self
            .inner
            .roots
            .get_or_try_init(|| blocking(|| Ok(Arc::new(crate::tls::system_roots()))))
            .await?;
        let options = &self.inner.options;
        let settings = Settings {
            timeouts: options.timeouts.clone(),
            proxy: options.proxy.clone(),
            user_agent: options.user_agent.clone(),
            credentials: Arc::clone(&options.credentials),
        };
        let (roots, hosts) = (Arc::clone(roots), plan.hosts.clone());
        let hosts = blocking(move || {
            let client = |host| HostClient::new(&plan.registry, host, settings.clone(), &roots).map(Arc::new);
            hosts.into_iter().map(client).collect()
        })
        .await
        .with_context(step)?;
        Ok(Repository { reference: reference.clone(), hosts, timeouts: options.timeouts.clone() })
    }

    /// Says which hosts would be asked to do `operation` on `reference`, in which order, and why. Nobody is asked.
    ///
    /// # Errors
    /// As [`Registry::repository`].
    pub async fn explain(&self, reference: &Reference, operation: Operation) -> Result<Explanation> {
        let plan = self.plan(reference).await?;
        let repository = self.repository(reference).await?;
        explain::explain(&plan, &repository.hosts, reference, operation).await
    }
}

/// Runs what reads files where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::with_source(ErrorKind::Internal, error))?
}

/// What a name points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest's or index's descriptor.
    pub descriptor: Descriptor,
    /// The host that answered.
    pub host: String,
    /// The document itself, if it had to be fetched to find out.
    pub document: Option<Bytes>,
}

/// One image's repository. Its hosts keep their connections and tokens as long as this lives. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(crate) reference: Reference,
    pub(crate) hosts: Vec<Arc<HostClient>>,
    pub(crate) timeouts: Timeouts,
}

impl Repository {
    /// The reference this was made for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The hosts that may do `operation`, in order.
    ///
    /// # Errors
    /// `NotFound` if the configuration leaves none.
    pub(crate) fn hosts_for(&self, operation: Operation) -> Result<Vec<Arc<HostClient>>> {
        let hosts: Vec<_> =
            self.hosts.iter().filter(|host| operation.allowed(host.host.capabilities)).cloned().collect();
        if hosts.is_empty() {
            return Err(Error::not_found(format!(
                "no host of {} is configured to {operation}",
                self.reference.host()
            )));
        }
        Ok(hosts)
    }

    /// A request about this repository: `path` is behind its name.
    pub(crate) fn ask(&self, host: &HostClient, method: Method, path: &str, push: bool) -> Ask {
        let repository = self.reference.repository();
        let mut ask = Ask::new(method, format!("{repository}/{path}"));
        ask.scopes = Scopes::from([self.scope(push)]);
        // A mirror of several registries must know which is meant.
        let registry = self.reference.host();
        let itself = host.host.host == registry
            || (registry == "docker.io" && host.host.host == "registry-1.docker.io");
        if !itself {
            ask.query.push(("ns".to_owned(), registry.to_owned()));
        }
        ask
    }

    /// Source: Distribution's `docs/spec/auth/scope.md`.
    pub(crate) fn scope(&self, push: bool) -> String {
        let actions = if push { "pull,push" } else { "pull" };
        format!("repository:{}:{actions}", self.reference.repository())
    }
}
