//! Asking one host: connections, authorization, retries, redirects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::ContentReader;
use gantry_core::{Error, ErrorKind, Result};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Client, Response, Url};
use rustls::RootCertStore;

use crate::authorizer::{Authorizer, Scopes, TokenFetcher};
use crate::credentials::{CredentialSource, Credentials};
use crate::hosts::{RegistryHost, TlsSettings};
use crate::proxy::ProxySettings;
use crate::repository::Timeouts;
use crate::token::{Token, TokenClient, TokenServer};
use crate::upload::{self, Progress};
use crate::{answer, failure, redirect, retry, tls};

/// Connections kept open for the next request, per host.
const MAX_IDLE_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What every host of a repository shares.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) timeouts: Timeouts,
    pub(crate) proxy: ProxySettings,
    pub(crate) user_agent: String,
    pub(crate) credentials: Arc<dyn CredentialSource>,
}

/// What a request carries.
#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// Part of a stored blob.
    Part {
        reader: Arc<dyn ContentReader>,
        start: u64,
        end: u64,
    },
}

/// A request to one host.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// A place that the host named itself, or a path behind its API's.
    pub(crate) place: Place,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) scopes: Scopes,
    /// Whether trouble is worth waiting for here, because no other host is left.
    pub(crate) patient: bool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// `name/blobs/...`, behind the API's path.
    Api(String),
    /// A URL; credentials go along only if it is of the host's own origin.
    Url(Url),
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Ask {
            method,
            place: Place::Api(path.into()),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Body::Empty,
            scopes: Scopes::new(),
            patient: true,
        }
    }
}

/// One host, with its connections and what it wants to know.
pub(crate) struct HostClient {
    pub(crate) host: RegistryHost,
    settings: Settings,
    /// For the host itself.
    client: Client,
    /// For wherever it sends us: no certificate of ours, no headers of ours.
    foreign: Client,
    authorizer: Authorizer,
    /// Whether the host turned out not to speak TLS.
    plain: AtomicBool,
}

impl HostClient {
    /// Prepares to talk to `host`, one of those for `registry`. Reads certificates, so it blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for unusable certificates or proxies.
    pub(crate) fn new(
        registry: &str,
        host: RegistryHost,
        settings: Settings,
        roots: &RootCertStore,
    ) -> Result<Self> {
        let named = |error: Error| error.context(format!("host {}", host.host));
        let client = build(&host.tls, &host, &settings, roots).map_err(named)?;
        let foreign_tls = TlsSettings { client: Vec::new(), ..host.tls.clone() };
        let foreign = build(&foreign_tls, &host, &settings, roots).map_err(named)?;
        // Credentials for the registry are for its own server, whatever that is called, and not for mirrors.
        let names: &[&str] = if host.is_origin { &[&host.host, registry] } else { &[&host.host] };
        let authorizer = Authorizer::new(names, Arc::clone(&settings.credentials));
        Ok(HostClient { host, settings, client, foreign, authorizer, plain: AtomicBool::new(false) })
    }

    /// The URL of `path` behind the API's own.
    fn api_url(&self, path: &str) -> Result<Url> {
        let scheme = if self.plain.load(Ordering::Relaxed) { "http" } else { self.host.scheme.as_str() };
        let text = format!("{scheme}://{}{}/{path}", self.host.host, self.host.path);
        Url::parse(&text)
            .map_err(|error| Error::invalid_argument(format!("host {}: {error}", self.host.host)))
    }

    /// The host's own origin, now.
    pub(crate) fn origin(&self) -> Result<Url> {
        self.api_url("")
    }

    /// The place that an answer of this host names for what comes next. A host behind a proxy often does not know how
    /// it was reached: what it calls by its own name is asked the way that led here.
    ///
    /// # Errors
    /// `FailedPrecondition` if it names none.
    pub(crate) fn location(&self, response: &Response) -> Result<Url> {
        let origin = self.origin()?;
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| Error::failed_precondition("the answer names no location"))?;
        let wrong = || Error::failed_precondition("the answer's location is not a URL");
        let mut url = response.url().join(location).map_err(|_| wrong())?;
        if url.host_str() == origin.host_str() && origin.scheme() == "https" && url.scheme() == "http" {
            url.set_scheme(origin.scheme()).map_err(|()| wrong())?;
            url.set_port(origin.port()).map_err(|()| wrong())?;
        }
        if !matches!(url.scheme(), "http" | "https") || (origin.scheme() == "https" && url.scheme() == "http")
        {
            return Err(Error::failed_precondition(format!("the answer leads to {}", redirect::shown(&url))));
        }
        url.set_username("").map_err(|()| wrong())?;
        url.set_password(None).map_err(|()| wrong())?;
        Ok(url)
    }

    /// Asks, and asks again where that helps. What comes back has any status.
    ///
    /// # Errors
    /// `Unavailable` if the host cannot be reached; `Unauthenticated` if it cannot be found out who is asking.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Response> {
        let mut scopes = ask.scopes.clone();
        let mut refusals = 0;
        let mut attempt = 0;
        loop {
            let url = match &ask.place {
                Place::Api(path) => self.api_url(path)?,
                Place::Url(url) => url.clone(),
            };
            let url = with_query(url, &ask.query);
            let own = redirect::same_origin(&url, &self.origin()?);
            let authorization = if own { self.authorizer.header(&scopes, self).await? } else { None };
            let answered = self.send(ask, url.clone(), own, authorization.as_ref()).await;
            attempt += 1;
            let pause = match answered {
                Ok(Answer::Final(response)) => {
                    let status = response.status();
                    if status == StatusCode::UNAUTHORIZED && own {
                        let first = refusals == 0;
                        refusals += 1;
                        let sent = authorization.as_ref();
                        let headers = response.headers();
                        if self.authorizer.refused(&url, headers, sent, &mut scopes, first).await? {
                            continue;
                        }
                        return Ok(response);
                    }
                    let worth = retry::is_busy(status) || (ask.patient && retry::is_transient(status));
                    if !worth || attempt >= retry::MAX_ATTEMPTS || matches!(ask.body, Body::Part { .. }) {
                        return Ok(response);
                    }
                    retry::wait(attempt, retry::asked(response.headers()))
                }
                // The answer of a stranger that was reached through the host.
                Ok(Answer::Elsewhere(response)) => {
                    let worth = ask.patient && retry::is_transient(response.status());
                    if !worth || attempt >= retry::MAX_ATTEMPTS {
                        return Ok(response);
                    }
                    retry::wait(attempt, retry::asked(response.headers()))
                }
                Err(Trouble { not_tls: true, .. }) if own && self.fall_back() => continue,
                Err(trouble) => {
                    let worth = trouble.error.kind() == ErrorKind::Unavailable && ask.patient;
                    if !worth || attempt >= retry::MAX_ATTEMPTS || matches!(ask.body, Body::Part { .. }) {
                        return Err(trouble.error);
                    }
                    tracing::debug!(host = %self.host.host, error = %trouble.error, attempt, "asking again");
                    retry::wait(attempt, None)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Goes over to plain HTTP, once, if the host's configuration allows it.
    fn fall_back(&self) -> bool {
        self.host.plain_fallback && !self.plain.swap(true, Ordering::Relaxed)
    }

    /// Sends once, and follows where readers are sent.
    async fn send(
        &self,
        ask: &Ask,
        url: Url,
        own: bool,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Trouble> {
        let client = if own { &self.client } else { &self.foreign };
        let mut headers = ask.headers.clone();
        if own {
            for (name, value) in &self.host.headers {
                headers.append(name.clone(), value.clone());
            }
            if let Some(value) = authorization {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
        }
        let response = self.send_to(client, ask, url.clone(), headers).await?;
        let reading = matches!(ask.method, Method::GET | Method::HEAD);
        if !reading || !redirect::is_redirect(response.status()) {
            return Ok(if own { Answer::Final(response) } else { Answer::Elsewhere(response) });
        }
        let mut from = url;
        let mut response = response;
        let mut still_own = own;
        for _ in 0..redirect::MAX_REDIRECTS {
            let to = redirect::target(&from, response.headers()).map_err(Trouble::from)?;
            // Once away, always away: a stranger does not choose what we ask with our credentials.
            still_own = still_own && redirect::same_origin(&from, &to);
            let (client, headers) = if still_own {
                let mut headers = ask.headers.clone();
                headers.extend(self.host.headers.clone());
                if let Some(value) = authorization {
                    headers.insert(header::AUTHORIZATION, value.clone());
                }
                (&self.client, headers)
            } else {
                (&self.foreign, ask.headers.clone())
            };
            response = self.send_to(client, ask, to.clone(), headers).await.map_err(|mut trouble| {
                trouble.error = trouble.error.context(format!("redirected to {}", redirect::shown(&to)));
                trouble.not_tls = false;
                trouble
            })?;
            if !redirect::is_redirect(response.status()) {
                return Ok(if still_own { Answer::Final(response) } else { Answer::Elsewhere(response) });
            }
            from = to;
        }
        Err(Error::failed_precondition(format!("more than {} redirects", redirect::MAX_REDIRECTS)).into())
    }

    async fn send_to(
        &self,
        client: &Client,
        ask: &Ask,
        url: Url,
        headers: HeaderMap,
    ) -> Result<Response, Trouble> {
        let mut request = client.request(ask.method.clone(), url).headers(headers);
        let mut sending = None;
        match &ask.body {
            Body::Empty => {
                if matches!(ask.method, Method::POST | Method::PUT | Method::PATCH) {
                    request = request.header(header::CONTENT_LENGTH, 0);
                }
            }
            Body::Bytes(bytes) => request = request.body(bytes.clone()),
            Body::Part { reader, start, end } => {
                request = request.header(header::CONTENT_LENGTH, end - start);
                let progress = Arc::new(Progress::new());
                request = request.body(upload::body(Arc::clone(reader), *start..*end, Arc::clone(&progress)));
                sending = Some(progress);
            }
        }
        let timeouts = &self.settings.timeouts;
        let sent = request.send();
        let answered = match sending {
            // How long sending takes depends on the size, so only standing still has a limit.
            Some(progress) => tokio::select! {
                answered = sent => answered,
                () = progress.stalls(timeouts) => {
                    return Err(Error::unavailable("the host takes no more of the upload").into());
                }
            },
            None => match tokio::time::timeout(timeouts.answer, sent).await {
                Ok(answered) => answered,
                Err(_) => {
                    return Err(Error::unavailable(format!("no answer within {:?}", timeouts.answer)).into());
                }
            },
        };
        answered
            .map_err(|error| Trouble { not_tls: answer::is_not_tls(&error), error: answer::failed(error) })
    }

    /// Credentials are known for this host; for explaining.
    pub(crate) async fn has_credentials(&self) -> Result<bool> {
        Ok(self.authorizer.credentials().await?.is_some())
    }

    /// Asks a stranger, as nobody.
    pub(crate) async fn ask_stranger(&self, ask: &Ask) -> Result<Response> {
        match self.send(ask, self.place_url(ask)?, false, None).await {
            Ok(Answer::Final(response) | Answer::Elsewhere(response)) => Ok(response),
            Err(trouble) => Err(trouble.error),
        }
    }

    fn place_url(&self, ask: &Ask) -> Result<Url> {
        match &ask.place {
            Place::Api(path) => self.api_url(path),
            Place::Url(url) => Ok(url.clone()),
        }
    }

    /// The error for an answer that is none.
    pub(crate) async fn unexpected(&self, response: Response) -> Error {
        let status = response.status();
        let body =
            answer::read_start(response, failure::MAX_ERROR_BYTES, self.settings.timeouts.answer).await;
        failure::from_status(status, &body)
    }
}

enum Answer {
    Final(Response),
    Elsewhere(Response),
}

struct Trouble {
    error: Error,
    /// The other end answered, but not in TLS.
    not_tls: bool,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble { error, not_tls: false }
    }
}

#[async_trait]
impl TokenFetcher for HostClient {
    async fn fetch_token(
        &self,
        server: &TokenServer,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Token> {
        let own = redirect::same_origin(&server.realm, &self.origin()?);
        let client = TokenClient {
            client: if own { &self.client } else { &self.foreign },
            headers: if own { self.host.headers.clone() } else { HeaderMap::new() },
            answer_timeout: self.settings.timeouts.answer,
        };
        client.fetch(server, scopes, credentials).await
    }
}

fn build(
    tls: &TlsSettings,
    host: &RegistryHost,
    settings: &Settings,
    roots: &RootCertStore,
) -> Result<Client> {
    let config = tls::client_config(tls, roots)?;
    let builder = Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(&settings.user_agent)
        .connect_timeout(host.dial_timeout.unwrap_or(settings.timeouts.dial))
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30));
    settings.proxy.apply(builder, &host.host)?.build().map_err(answer::failed)
}

fn with_query(mut url: Url, query: &[(String, String)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}
