//! Access tokens: asking a token server for one.
//!
//! Source: Distribution's `docs/spec/auth/token.md` and `oauth.md`.

use std::time::{Duration, Instant};

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::{answer, failure, redirect, retry};

/// How much of an answer is read. Tokens that list many rights have some kilobytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long a token counts if its server does not say. Source: the specification's default.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Whom we say we are to servers that ask.
const CLIENT_ID: &str = "gantry-client";
const ATTEMPTS: u32 = 3;

/// Where tokens are to be had, as a registry named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenServer {
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
}

/// A token, ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    expires: Instant,
}

impl Token {
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.expires
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// The clients for a token server: `own` if it is the registry itself, else `foreign`.
pub(crate) struct TokenClient<'a> {
    pub(crate) client: &'a reqwest::Client,
    /// Headers that go along; none if the server is not the registry itself.
    pub(crate) headers: HeaderMap,
    pub(crate) answer_timeout: Duration,
}

impl TokenClient<'_> {
    /// Gets a token for `scopes`.
    ///
    /// # Errors
    /// `Unauthenticated` if the server does not take the credentials; `Unavailable` if it cannot be asked.
    pub(crate) async fn fetch(
        &self,
        server: &TokenServer,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Token> {
        let step = || format!("token from {}", redirect::shown(&server.realm));
        let answer = match credentials {
            Some(credentials) => match self.post(server, scopes, credentials).await {
                Ok(Ok(answer)) => answer,
                // Source: servers without the newer form answer one of these.
                Ok(Err((status, _))) if matches!(status.as_u16(), 400 | 401 | 404 | 405) => {
                    self.get(server, scopes, Some(credentials)).await.with_context(step)?
                }
                Ok(Err((status, body))) => return Err(refused(status, &body).context(step())),
                Err(error) => return Err(error.context(step())),
            },
            None => self.get(server, scopes, None).await.with_context(step)?,
        };
        read(&answer).with_context(step)
    }

    /// The newer form, which also takes identity tokens.
    async fn post(
        &self,
        server: &TokenServer,
        scopes: &[String],
        credentials: &Credentials,
    ) -> Result<Result<Vec<u8>, (StatusCode, Vec<u8>)>> {
        let scope = scopes.join(" ");
        let mut form =
            vec![("client_id", CLIENT_ID), ("service", server.service.as_deref().unwrap_or_default())];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        if credentials.username.is_empty() {
            form.extend([("grant_type", "refresh_token"), ("refresh_token", &credentials.secret)]);
        } else {
            form.extend([
                ("grant_type", "password"),
                ("username", credentials.username.as_str()),
                ("password", &credentials.secret),
            ]);
        }
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let body: Vec<String> = form.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.ask(Method::POST, &server.realm, headers, body.join("&").into_bytes()).await
    }

    /// The older form.
    async fn get(
        &self,
        server: &TokenServer,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Vec<u8>> {
        let mut url = server.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &server.service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
        }
        let mut headers = self.headers.clone();
        if let Some(credentials) = credentials {
            headers.insert(header::AUTHORIZATION, basic(credentials)?);
        }
        match self.ask(Method::GET, &url, headers, Vec::new()).await? {
            Ok(body) => Ok(body),
            Err((status, body)) => Err(refused(status, &body)),
        }
    }

    /// Asks until there is an answer. Redirects are not followed: credentials are in the request.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Result<Vec<u8>, (StatusCode, Vec<u8>)>> {
        let mut attempt = 0;
        loop {
            let request = self
                .client
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .body(body.clone())
                .send();
            let answered = match tokio::time::timeout(self.answer_timeout, request).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(answer::failed(error)),
                Err(_) => Err(Error::unavailable("no answer in time")),
            };
            attempt += 1;
            let pause = match answered {
                Ok(response) if response.status().is_success() => {
                    let body = answer::read_body(response, MAX_ANSWER_BYTES, self.answer_timeout).await?;
                    return Ok(Ok(body));
                }
                Ok(response) if attempt < ATTEMPTS && retry::is_transient(response.status()) => {
                    retry::wait(attempt, retry::asked(response.headers()))
                }
                Ok(response) => {
                    let status = response.status();
                    let body =
                        answer::read_start(response, failure::MAX_ERROR_BYTES, self.answer_timeout).await;
                    return Ok(Err((status, body)));
                }
                Err(error) if attempt < ATTEMPTS && error.kind() == ErrorKind::Unavailable => {
                    retry::wait(attempt, None)
                }
                Err(error) => return Err(error),
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Error {
    let error = failure::from_status(status, body);
    // To whoever pulls, a token server that forbids is one that does not know him.
    if status == StatusCode::FORBIDDEN { error.with_kind(ErrorKind::Unauthenticated) } else { error }
}

fn read(body: &[u8]) -> Result<Token> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| Error::new(ErrorKind::Unauthenticated, "the answer is not a token"))?;
    let text = answer
        .access_token
        .filter(|text| !text.is_empty())
        .or(answer.token)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Error::new(ErrorKind::Unauthenticated, "the answer has no token in it"))?;
    let mut header = HeaderValue::try_from(format!("Bearer {text}"))
        .map_err(|_| Error::new(ErrorKind::Unauthenticated, "the token has characters that no header has"))?;
    header.set_sensitive(true);
    let lifetime =
        answer.expires_in.filter(|seconds| *seconds > 0).map_or(DEFAULT_LIFETIME, Duration::from_secs);
    // Not to the last moment, since requests take time; and at most a day, whatever a server says.
    let lifetime = lifetime.min(Duration::from_secs(86_400)).mul_f64(0.9);
    Ok(Token { header, expires: Instant::now() + lifetime })
}

/// Name and password as a header.
pub(crate) fn basic(credentials: &Credentials) -> Result<HeaderValue> {
    use base64::Engine as _;
    let text = format!("{}:{}", credentials.username, credentials.secret);
    let mut header =
        HeaderValue::try_from(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
            .map_err(|_| Error::internal("base64 fits a header"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_name_of_a_token_is_read() {
        assert_eq!(read(br#"{"token":"a","expires_in":300}"#).unwrap().header, "Bearer a");
        assert_eq!(read(br#"{"token":"a","access_token":"b"}"#).unwrap().header, "Bearer b");
        for body in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, "[]"] {
            assert_eq!(read(body.as_bytes()).unwrap_err().kind(), ErrorKind::Unauthenticated, "{body}");
        }
        assert!(read(br#"{"token":"a","expires_in":18446744073709551615}"#).unwrap().is_fresh());
    }
}
