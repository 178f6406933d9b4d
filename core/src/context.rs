//! What every call carries: namespace, lease, deadline, cancellation, trace.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::{Error, LeaseId, Namespace, Result};

/// The surroundings of one call. Explicit and small: no transaction and no options hide in it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    namespace: Option<Namespace>,
    lease: Option<LeaseId>,
    deadline: Option<Instant>,
    cancellation: CancellationToken,
    trace: Option<String>,
}

impl Context {
    /// A context of no namespace, for calls that need none.
    pub fn background() -> Self {
        Self::default()
    }

    /// A context of `namespace`, without lease or deadline.
    pub fn new(namespace: Namespace) -> Self {
        Context { namespace: Some(namespace), ..Self::default() }
    }

    /// The same surroundings in another namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// The same with `lease` protecting what is created.
    #[must_use]
    pub fn with_lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The same without a lease.
    #[must_use]
    pub fn without_lease(mut self) -> Self {
        self.lease = None;
        self
    }

    /// The same with an end.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same, cancelled by `token`.
    #[must_use]
    pub fn with_cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// The same with a W3C `traceparent`.
    #[must_use]
    pub fn with_trace(mut self, trace: Option<String>) -> Self {
        self.trace = trace;
        self
    }

    /// The caller's namespace.
    ///
    /// # Errors
    /// `FailedPrecondition` if the call came without one.
    pub fn namespace(&self) -> Result<&Namespace> {
        // Source: observed answer of containerd for a call without the header.
        self.namespace.as_ref().ok_or_else(|| Error::failed_precondition("namespace is required"))
    }

    /// The caller's namespace, if it named one.
    pub fn namespace_if_any(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// The lease that protects what this call creates.
    pub fn lease(&self) -> Option<&LeaseId> {
        self.lease.as_ref()
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Fired when the caller gave up.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// The W3C `traceparent` that came with the call.
    pub fn trace(&self) -> Option<&str> {
        self.trace.as_deref()
    }

    /// Fails once the caller gave up; for loops of long work.
    ///
    /// # Errors
    /// `Canceled` after the cancellation fired; `DeadlineExceeded` after the deadline.
    pub fn check(&self) -> Result<()> {
        if self.cancellation.is_cancelled() {
            return Err(Error::bare(crate::ErrorKind::Canceled));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::bare(crate::ErrorKind::DeadlineExceeded));
        }
        Ok(())
    }
}
