//! Proving to one host who is asking.
//!
//! Each host has its own authorizer, so what one host was given is never shown to another.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_core::{Error, ErrorKind, Result};
use http::{HeaderMap, HeaderValue};
use reqwest::Url;
use tokio::sync::{Mutex, OnceCell};

use crate::challenge::{self, Challenge};
use crate::credentials::{CredentialSource, Credentials, canonical};
use crate::hosts::is_loopback;
use crate::token::{self, Token, TokenServer};

/// Tokens kept for one host. A repository needs one or two.
const MAX_TOKENS: usize = 64;
const MAX_SCOPE_BYTES: usize = 4096;

/// What a request needs: `repository:name:pull`.
pub(crate) type Scopes = BTreeSet<String>;

/// How one host wants to be asked.
#[derive(Clone, Debug, Default)]
enum Method {
    /// It has not complained so far.
    #[default]
    Unasked,
    /// Name and password.
    Basic(HeaderValue),
    /// Tokens of this server.
    Bearer(TokenServer),
}

#[derive(Default)]
struct State {
    method: Method,
    /// A token for each set of scopes. The cell is shared by those who wait for the same token.
    tokens: HashMap<Vec<String>, Arc<OnceCell<Token>>>,
}

/// Gets a token; given by the transport, which has the clients.
#[async_trait::async_trait]
pub(crate) trait TokenFetcher: Sync {
    async fn fetch_token(
        &self,
        server: &TokenServer,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Token>;
}

/// The authorizer of one host.
pub(crate) struct Authorizer {
    /// Under which names there may be credentials for it, the first that has any counting.
    names: Vec<String>,
    source: Arc<dyn CredentialSource>,
    credentials: OnceCell<Option<Credentials>>,
    state: Mutex<State>,
}

impl Authorizer {
    pub(crate) fn new(names: &[&str], source: Arc<dyn CredentialSource>) -> Self {
        let mut names: Vec<String> = names.iter().map(|name| canonical(name).to_owned()).collect();
        names.dedup();
        Authorizer { names, source, credentials: OnceCell::new(), state: Mutex::new(State::default()) }
    }

    /// What is known for this host; looked up once.
    ///
    /// # Errors
    /// Those of the source.
    pub(crate) async fn credentials(&self) -> Result<Option<&Credentials>> {
        let look = async || {
            for name in &self.names {
                if let Some(found) = self.source.find(name).await? {
                    return Ok(Some(found));
                }
            }
            Ok::<_, Error>(None)
        };
        Ok(self.credentials.get_or_try_init(look).await?.as_ref())
    }

    /// What to send for `scopes`; nothing if the host has not asked.
    ///
    /// # Errors
    /// Those of finding credentials and getting a token.
    pub(crate) async fn header(
        &self,
        scopes: &Scopes,
        fetcher: &dyn TokenFetcher,
    ) -> Result<Option<HeaderValue>> {
        let (server, cell) = {
            let mut state = self.state.lock().await;
            match state.method.clone() {
                Method::Unasked => return Ok(None),
                Method::Basic(header) => return Ok(Some(header)),
                Method::Bearer(server) => {
                    let key: Vec<String> = scopes.iter().cloned().collect();
                    if state
                        .tokens
                        .get(&key)
                        .is_some_and(|cell| cell.get().is_some_and(|token| !token.is_fresh()))
                    {
                        state.tokens.remove(&key);
                    }
                    if state.tokens.len() >= MAX_TOKENS {
                        state.tokens.clear();
                    }
                    (server, Arc::clone(state.tokens.entry(key).or_default()))
                }
            }
        };
        let scopes: Vec<String> = scopes.iter().cloned().collect();
        let credentials = self.credentials().await?;
        let token = cell.get_or_try_init(|| fetcher.fetch_token(&server, &scopes, credentials)).await?;
        Ok(Some(token.header.clone()))
    }

    /// Learns from a refusal how to ask; `scopes` may grow by what the host names. `sent` is what was refused.
    /// `true` if asking again can help.
    ///
    /// # Errors
    /// `FailedPrecondition` if the host's demand cannot be met safely; those of finding credentials.
    pub(crate) async fn refused(
        &self,
        url: &Url,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
        scopes: &mut Scopes,
        first_refusal: bool,
    ) -> Result<bool> {
        let challenges = challenge::parse_all(headers);
        if let Some(bearer) = challenges.iter().find(|one| one.scheme == "bearer") {
            let server = token_server(url, bearer)?;
            let named = bearer.parameters.get("scope").filter(|scope| scope.len() <= MAX_SCOPE_BYTES);
            scopes.extend(named.iter().flat_map(|scope| scope.split_whitespace()).map(str::to_owned));
            let mut state = self.state.lock().await;
            let same = matches!(&state.method, Method::Bearer(known) if *known == server);
            if !same {
                state.method = Method::Bearer(server);
                state.tokens.clear();
            } else if let Some(sent) = sent {
                // It may have been revoked, or have too few rights: forget it, unless a newer one is there.
                state.tokens.retain(|_, cell| cell.get().is_none_or(|token| token.header != *sent));
            }
            // A second token will not be better than the first.
            return Ok(first_refusal);
        }
        if challenges.iter().any(|one| one.scheme == "basic") {
            let Some(credentials) = self.credentials().await? else { return Ok(false) };
            if credentials.username.is_empty() {
                return Ok(false);
            }
            let header = token::basic(credentials)?;
            if sent == Some(&header) {
                return Ok(false);
            }
            self.state.lock().await.method = Method::Basic(header);
            return Ok(first_refusal);
        }
        Ok(false)
    }
}

/// The token server that a challenge names, if it may be asked.
fn token_server(url: &Url, challenge: &Challenge) -> Result<TokenServer> {
    let wrong = |why: &str| Error::new(ErrorKind::FailedPrecondition, format!("token server: {why}"));
    let realm = challenge.parameters.get("realm").ok_or_else(|| wrong("the challenge names none"))?;
    let mut realm = Url::parse(realm).map_err(|_| wrong("the challenge names no URL"))?;
    let name = realm.host_str().map(str::to_owned).ok_or_else(|| wrong("the challenge names no host"))?;
    match realm.scheme() {
        "https" => {}
        // Whoever asked for plain HTTP, or is on this machine, may have it here too.
        "http"
            if url.scheme() == "http" || (is_loopback(&name) && url.host_str().is_some_and(is_loopback)) => {}
        _ => return Err(wrong(&format!("{} is not encrypted", crate::redirect::shown(&realm)))),
    }
    if realm.set_username("").is_err() || realm.set_password(None).is_err() {
        return Err(wrong("the challenge names no host"));
    }
    let service = challenge.parameters.get("service").filter(|text| text.len() <= 1024).cloned();
    Ok(TokenServer { realm, service })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_for(url: &str, realm: &str) -> Result<TokenServer> {
        let challenge = Challenge {
            scheme: "bearer".into(),
            parameters: [("realm".to_owned(), realm.to_owned())].into(),
        };
        token_server(&Url::parse(url).unwrap(), &challenge)
    }

    #[test]
    fn a_token_server_is_not_plain_unless_the_registry_is() {
        server_for("https://r.example/v2/", "https://auth.example/token").unwrap();
        server_for("http://r.example/v2/", "http://auth.example/token").unwrap();
        server_for("http://localhost:1/v2/", "http://127.0.0.1:2/token").unwrap();
        for realm in [
            "http://auth.example/token",
            "http://127.0.0.1/token",
            "ftp://x/",
            "",
            "token",
            "file:///etc/passwd",
        ] {
            server_for("https://r.example/v2/", realm).unwrap_err();
        }
        assert_eq!(
            server_for("https://r.example/v2/", "https://u:p@auth.example/").unwrap().realm.as_str(),
            "https://auth.example/"
        );
    }
}
