//! Proxies between us and a registry.

use gantry_core::{Error, Result};
use reqwest::{ClientBuilder, NoProxy, Proxy};

/// Which proxies are used. A host of this machine is never asked through one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// For plain HTTP; none if absent.
    pub http: Option<String>,
    /// For HTTPS; none if absent.
    pub https: Option<String>,
    /// Hosts, domains and address ranges that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl ProxySettings {
    /// What this process's environment says: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in either case.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            variable(name)
                .or_else(|| variable(&name.to_ascii_lowercase()))
                .filter(|value| !value.trim().is_empty())
        };
        // Source: in a CGI program `HTTP_PROXY` comes from a request's header, so it means nothing there.
        let http =
            if variable("REQUEST_METHOD").is_some() { variable("http_proxy") } else { either("HTTP_PROXY") };
        ProxySettings { http, https: either("HTTPS_PROXY"), no_proxy: either("NO_PROXY") }
    }

    /// Applies the settings to a client that talks to `host`.
    ///
    /// # Errors
    /// `InvalidArgument` for a proxy that is no URL.
    pub(crate) fn apply(&self, builder: ClientBuilder, host: &str) -> Result<ClientBuilder> {
        // Nothing that the library finds by itself.
        let mut builder = builder.no_proxy();
        if crate::hosts::is_loopback(host) {
            return Ok(builder);
        }
        // An address without a scheme is one of a plain proxy.
        let url = |text: &str| if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // The text may hold a password.
        let wrong = |name: &str| Error::invalid_argument(format!("{name} is not the URL of a proxy"));
        let direct = || self.no_proxy.as_deref().and_then(NoProxy::from_string);
        if let Some(proxy) = &self.http {
            builder =
                builder.proxy(Proxy::http(url(proxy)).map_err(|_| wrong("HTTP_PROXY"))?.no_proxy(direct()));
        }
        if let Some(proxy) = &self.https {
            builder =
                builder.proxy(Proxy::https(url(proxy)).map_err(|_| wrong("HTTPS_PROXY"))?.no_proxy(direct()));
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_in_either_case() {
        let settings = ProxySettings::from_variables(|name| match name {
            "http_proxy" => Some("p:1".into()),
            "HTTPS_PROXY" => Some("http://q:2".into()),
            "NO_PROXY" => Some(" ".into()),
            _ => None,
        });
        assert_eq!(settings.http.as_deref(), Some("p:1"));
        assert_eq!(settings.https.as_deref(), Some("http://q:2"));
        assert_eq!(settings.no_proxy, None);
        let cgi = ProxySettings::from_variables(|name| {
            matches!(name, "REQUEST_METHOD" | "HTTP_PROXY").then(|| "x".into())
        });
        assert_eq!(cgi.http, None);
    }
}
