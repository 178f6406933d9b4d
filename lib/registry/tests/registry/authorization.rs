//! Who is told who we are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::*;
use gantry_core::ErrorKind;
use gantry_registry::credentials::ForHost;
use gantry_registry::{Credentials, FetchOptions, RegistryOptions};

fn credentials(username: &str, secret: &str) -> Credentials {
    Credentials { username: username.into(), secret: secret.into() }
}

fn known_at(host: &str, username: &str, secret: &str) -> RegistryOptions {
    RegistryOptions { credentials: Arc::new(ForHost::new(host, credentials(username, secret))), ..options() }
}

fn manifest_answer(out: &mut Out<'_>) {
    let digest = format!("Docker-Content-Digest: {}", digest(&manifest()));
    out.head(
        "200 OK",
        &["Content-Type: application/vnd.oci.image.manifest.v1+json", &digest],
        manifest().len(),
    );
}

/// A registry that wants tokens of a server at `/token` on itself, and gives one for what `grant` accepts.
fn token_registry(grant: impl Fn(&Seen) -> Result<String, &'static str> + Send + Sync + 'static) -> Server {
    Server::start(move |seen, out| {
        if seen.path() == "/token" {
            return match grant(seen) {
                Ok(token) => {
                    out.reply("200 OK", &[], format!(r#"{{"token":"{token}","expires_in":300}}"#).as_bytes())
                }
                Err(status) => {
                    out.reply(status, &[], br#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#)
                }
            };
        }
        if seen.header("authorization") == Some("Bearer good") {
            return manifest_answer(out);
        }
        let host = seen.header("host").unwrap();
        let challenge = format!(
            r#"WWW-Authenticate: Bearer realm="http://{host}/token",service="s",scope="repository:app/x:pull""#
        );
        out.reply("401 Unauthorized", &[&challenge], b"");
    })
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_once_and_kept() {
    let server = token_registry(|_| Ok("good".into()));
    let repository = at(&server).await;
    repository.resolve().await.unwrap();
    repository.resolve().await.unwrap();
    assert_eq!(
        server.lines(),
        [
            "HEAD /v2/app/x/manifests/t",
            "GET /token?service=s&scope=repository%3Aapp%2Fx%3Apull",
            "HEAD /v2/app/x/manifests/t",
            "HEAD /v2/app/x/manifests/t",
        ]
    );
}

#[tokio::test]
async fn name_and_password_are_posted_and_the_older_form_is_tried_next() {
    for refusal in ["405 Method Not Allowed", "404 Not Found", "401 Unauthorized", "400 Bad Request"] {
        let server = token_registry(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
            ("POST", _) => Err(refusal),
            // u:p
            (_, Some("Basic dTpw")) => Ok("good".into()),
            _ => Err("401 Unauthorized"),
        });
        at_with(&server, known_at(&server.address, "u", "p")).await.resolve().await.unwrap();
        let posted = server.seen().into_iter().find(|seen| seen.method == "POST").unwrap();
        let form = String::from_utf8(posted.body).unwrap();
        assert!(form.contains("grant_type=password&username=u&password=p"), "{form}");
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = token_registry(|seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        if form.contains("grant_type=refresh%5Ftoken&refresh_token=id%2Btoken") {
            Ok("good".into())
        } else {
            Err("400 Bad Request")
        }
    });
    at_with(&server, known_at(&server.address, "", "id+token")).await.resolve().await.unwrap();
}

#[tokio::test]
async fn refused_credentials_are_unauthenticated() {
    let server = token_registry(|_| Err("401 Unauthorized"));
    let error = at_with(&server, known_at(&server.address, "u", "wrong")).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let tokens = AtomicUsize::new(0);
    let server = token_registry(move |_| {
        Ok(if tokens.fetch_add(1, Ordering::Relaxed) == 0 { "good" } else { "bad" }.into())
    });
    let repository = at(&server).await;
    repository.resolve().await.unwrap();

    let asked = AtomicUsize::new(0);
    let never = token_registry(move |_| Ok(format!("bad{}", asked.fetch_add(1, Ordering::Relaxed))));
    let error = at(&never).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let tokens = never.lines().iter().filter(|line| line.contains("/token")).count();
    assert!(tokens <= 2, "{:?}", never.lines());
}

#[tokio::test]
async fn basic_credentials_are_sent_when_asked_for() {
    let basic = |good: &'static str| {
        Server::start(move |seen, out| match seen.header("authorization") {
            Some(header) if header == good => manifest_answer(out),
            _ => out.reply("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""], b""),
        })
    };
    let server = basic("Basic dTpw");
    at_with(&server, known_at(&server.address, "u", "p")).await.resolve().await.unwrap();
    assert_eq!(server.seen().len(), 2);
    // Wrong ones are sent once, and none if there are none.
    let server = basic("Basic other");
    let error = at_with(&server, known_at(&server.address, "u", "p")).await.resolve().await.unwrap_err();
    assert_eq!((error.kind(), server.seen().len()), (ErrorKind::Unauthenticated, 2));
    let server = basic("Basic dTpw");
    let error = at(&server).await.resolve().await.unwrap_err();
    assert_eq!((error.kind(), server.authorized()), (ErrorKind::Unauthenticated, 0));
}

#[tokio::test]
async fn a_mirror_does_not_get_the_registrys_credentials() {
    let challenge = "WWW-Authenticate: Basic realm=\"r\"";
    let mirror = Server::start(move |_, out| out.reply("401 Unauthorized", &[challenge], b""));
    let origin = Server::start(move |seen, out| match seen.header("authorization") {
        Some(_) => manifest_answer(out),
        None => out.reply("401 Unauthorized", &[challenge], b""),
    });
    let text = format!("server = 'http://{}'\n[host.'http://{}']\n", origin.address, mirror.address);
    let (_dir, hosts) = hosts("r.example", &text);
    let options = RegistryOptions { hosts, ..known_at(&origin.address, "u", "p") };
    repository("r.example/app/x:t", options).await.resolve().await.unwrap();
    assert_eq!(mirror.authorized(), 0);
    assert_eq!(origin.authorized(), 1);
}

#[tokio::test]
async fn s01_the_place_of_a_foreign_layer_never_gets_credentials() {
    let blob = noise(5000);
    for challenge in ["Basic realm=\"r\"", "Bearer realm=\"http://HOST/token\",service=\"s\""] {
        let challenge = challenge.to_owned();
        let stranger = Server::start(move |seen, out| {
            let challenge = challenge.replace("HOST", seen.header("host").unwrap());
            out.reply("401 Unauthorized", &[&format!("WWW-Authenticate: {challenge}")], b"");
        });
        // The registry wants credentials, gets them, and does not have the layer.
        let registry = Server::start(|seen, out| match seen.header("authorization") {
            Some(_) => out.reply("404 Not Found", &[], b""),
            None => out.reply("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""], b""),
        });
        let repository = at_with(&registry, known_at(&registry.address, "u", "p")).await;
        let urls = vec![format!("http://x:y@{}/layer", stranger.address)];
        let options = FetchOptions { urls, ..FetchOptions::default() };
        let error = repository.fetch_blob(&layer(&blob), options).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert_eq!(stranger.lines(), ["GET /layer"]);
        assert_eq!(stranger.authorized(), 0);
        assert!(registry.authorized() > 0);
    }
}

#[tokio::test]
async fn a_foreign_layer_is_fetched_from_its_place_when_the_registry_has_none() {
    let blob = noise(5000);
    let served = blob.clone();
    let stranger = Server::start(move |_, out| out.reply("200 OK", &[], &served));
    let registry = Server::start(|_, out| out.reply("404 Not Found", &[], b""));
    let urls = vec!["ftp://x/".to_owned(), format!("http://{}/layer", stranger.address)];
    let options = FetchOptions { urls, ..FetchOptions::default() };
    let reader = at(&registry).await.fetch_blob(&layer(&blob), options).await.unwrap();
    assert_eq!(read_all(reader).await.unwrap(), blob);
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials_and_no_headers() {
    let blob = noise(5000);
    let served = blob.clone();
    let storage = Server::start(move |_, out| out.reply("200 OK", &[], &served));
    let place = format!("Location: http://{}/signed?key=secret", storage.address);
    let registry = Server::start(move |seen, out| match (seen.path(), seen.header("authorization")) {
        (_, None) => out.reply("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""], b""),
        ("/moved", Some(_)) => out.reply("307 Temporary Redirect", &[&place], b""),
        // First within the host, where credentials go along.
        _ => out.reply("302 Found", &["Location: /moved"], b""),
    });
    let mut options = known_at(&registry.address, "u", "p");
    options.hosts.headers.insert("x-token", "hidden".parse().unwrap());
    let reader =
        at_with(&registry, options).await.fetch_blob(&layer(&blob), FetchOptions::default()).await.unwrap();
    assert_eq!(read_all(reader).await.unwrap(), blob);
    assert_eq!(registry.seen().last().unwrap().header("x-token"), Some("hidden"));
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].header("authorization"), seen[0].header("x-token")), (None, None));
    assert_eq!(seen[0].header("referer"), None);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = Server::start(|_, out| out.reply("302 Found", &["Location: /again"], b""));
    let error = at(&server).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(server.seen().len() <= 12);
}

#[tokio::test]
async fn scopes_of_pulling_and_pushing_differ() {
    let server = token_registry(|_| Ok("good".into()));
    let repository = at(&server).await;
    repository.has_blob(&layer(b"x")).await.unwrap();
    let token = server.lines().into_iter().find(|line| line.contains("/token")).unwrap();
    assert!(token.contains("scope=repository%3Aapp%2Fx%3Apull%2Cpush"), "{token}");
}

#[tokio::test]
async fn credentials_for_a_registry_are_for_its_configured_server_too() {
    let origin = Server::start(move |seen, out| match seen.header("authorization") {
        Some(_) => manifest_answer(out),
        None => out.reply("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""], b""),
    });
    let (_dir, hosts) = hosts("r.example", &format!("server = 'http://{}'\n", origin.address));
    let options = RegistryOptions { hosts, ..known_at("r.example", "u", "p") };
    repository("r.example/app/x:t", options).await.resolve().await.unwrap();
}
