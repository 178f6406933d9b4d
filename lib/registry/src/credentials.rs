//! Credentials, and where they come from.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::Result;

/// Who is asking, for one host.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name. Empty means that the secret is an identity token, for which a token server gives access tokens.
    pub username: String,
    /// The password or token.
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("secret", &"...").finish()
    }
}

/// Finds credentials for a host.
///
/// It is asked once for each host of a repository, when that host wants them. What it answers goes to that host and
/// the token server that this host names, and nowhere else.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The credentials for `host`, which has its port if it is not the usual one. All of Docker Hub's hosts are
    /// called `docker.io`. `None` means anonymous.
    ///
    /// # Errors
    /// If it cannot be found out whether there are any.
    async fn find(&self, host: &str) -> Result<Option<Credentials>>;
}

/// The name under which credentials for `host` are kept.
pub(crate) fn canonical(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "index.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other.strip_suffix(":443").unwrap_or(other),
    }
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl CredentialSource for Anonymous {
    async fn find(&self, _: &str) -> Result<Option<Credentials>> {
        Ok(None)
    }
}

/// Credentials that a caller gave for one registry.
#[derive(Clone, Debug)]
pub struct ForHost {
    host: String,
    credentials: Credentials,
}

impl ForHost {
    /// `credentials` for `host`, the one of the image's name. Mirrors of it do not get them.
    pub fn new(host: &str, credentials: Credentials) -> Self {
        ForHost { host: canonical(host).to_owned(), credentials }
    }
}

#[async_trait]
impl CredentialSource for ForHost {
    async fn find(&self, host: &str) -> Result<Option<Credentials>> {
        Ok((canonical(host) == self.host).then(|| self.credentials.clone()))
    }
}

/// Several sources; the first that knows the host answers.
#[derive(Clone)]
pub struct FirstOf(pub Vec<Arc<dyn CredentialSource>>);

#[async_trait]
impl CredentialSource for FirstOf {
    async fn find(&self, host: &str) -> Result<Option<Credentials>> {
        for source in &self.0 {
            if let Some(found) = source.find(host).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_are_for_their_host_only() {
        let given = Credentials { username: "u".into(), secret: "very secret".into() };
        let hub = ForHost::new("docker.io", given.clone());
        assert_eq!(hub.find("registry-1.docker.io").await.unwrap(), Some(given.clone()));
        assert_eq!(hub.find("mirror.example").await.unwrap(), None);
        let first = FirstOf(vec![Arc::new(Anonymous), Arc::new(ForHost::new("a.example:5000", given))]);
        assert!(first.find("a.example:5000").await.unwrap().is_some());
        assert!(first.find("a.example").await.unwrap().is_none());
        assert!(!format!("{hub:?}").contains("very secret"));
    }
}
