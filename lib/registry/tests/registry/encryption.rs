//! Whom we believe, and what we show.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gantry_core::ErrorKind;
use gantry_oci::media_types;
use gantry_registry::{HostsOptions, RegistryOptions, Repository};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::server::*;

/// An authority, and what it has signed, in files.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), issuer.pem()).unwrap();
        Authority { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for `name`, as `<name>.cert` and `<name>.key`.
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let signed =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.cert")), signed.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (signed, key)
    }
}

/// A registry in TLS; says how many handshakes succeeded, and how many showed a certificate.
struct TlsServer {
    port: u16,
    shown: Arc<Mutex<Vec<bool>>>,
}

impl TlsServer {
    fn start(authority: &Authority, name: &str, wants_client: bool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate, key) = authority.sign(name);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&shown);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, log) = (Arc::clone(&config), Arc::clone(&log));
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                    let mut request = Vec::new();
                    let mut byte = [0];
                    while !request.ends_with(b"\r\n\r\n") {
                        if !matches!(stream.read(&mut byte), Ok(1)) {
                            return;
                        }
                        request.push(byte[0]);
                    }
                    log.lock().unwrap().push(stream.conn.peer_certificates().is_some());
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: {}\r\nDocker-Content-Digest: {}\r\nConnection: close\r\n\r\n",
                        manifest().len(),
                        media_types::OCI_MANIFEST,
                        digest(&manifest())
                    );
                    // The client may have seen enough.
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.flush());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        TlsServer { port, shown }
    }

    fn shown(&self) -> Vec<bool> {
        self.shown.lock().unwrap().clone()
    }

    /// A repository whose registry is this server, configured by `extra` in its table.
    async fn configured(&self, extra: &str) -> (tempfile::TempDir, Repository) {
        let text = format!("server = 'https://localhost:{}'\n{extra}", self.port);
        let (dir, hosts) = hosts("r.example", &text);
        (dir, repository("r.example/app/x:t", RegistryOptions { hosts, ..options() }).await)
    }
}

#[tokio::test]
async fn a_host_is_believed_if_its_configured_authority_signed_it() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "localhost", false);
    let ca = format!("ca = '{}'", authority.path("ca.crt").display());
    let (_dir, repository) = server.configured(&ca).await;
    repository.resolve().await.unwrap();
}

#[tokio::test]
async fn a_host_that_nobody_vouches_for_is_refused_at_once() {
    let authority = Authority::new();
    let other = Authority::new();
    let wrong_name = TlsServer::start(&authority, "elsewhere.example", false);
    let server = TlsServer::start(&authority, "localhost", false);
    let ca = |authority: &Authority| format!("ca = '{}'", authority.path("ca.crt").display());
    for (server, extra) in [(&server, String::new()), (&server, ca(&other)), (&wrong_name, ca(&authority))] {
        let (_dir, repository) = server.configured(&extra).await;
        let error = repository.resolve().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains(&format!("localhost:{}", server.port)), "{error}");
        assert!(server.shown().is_empty());
    }
}

#[tokio::test]
async fn anybody_is_believed_where_the_configuration_says_so() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, "elsewhere.example", false);
    let (_dir, repository) = server.configured("skip_verify = true").await;
    repository.resolve().await.unwrap();
    // And on this machine.
    let server = TlsServer::start(&authority, "elsewhere.example", false);
    repository_on_loopback(&server).await.resolve().await.unwrap();
}

async fn repository_on_loopback(server: &TlsServer) -> Repository {
    repository(&format!("localhost:{}/app/x:t", server.port), options()).await
}

#[tokio::test]
async fn our_certificate_is_shown_to_the_host_that_wants_it() {
    let authority = Authority::new();
    authority.sign("me");
    let server = TlsServer::start(&authority, "localhost", true);
    let at = |name: &str| authority.path(name).display().to_string();
    let ca = format!("ca = '{}'\n", at("ca.crt"));
    let pair = format!("{ca}client = [['{}', '{}']]", at("me.cert"), at("me.key"));
    let (_dir, repository) = server.configured(&pair).await;
    repository.resolve().await.unwrap();
    assert_eq!(server.shown(), [true]);
    let (_dir, repository) = server.configured(&ca).await;
    repository.resolve().await.unwrap_err();
    // Certificate and key in one file.
    let both = [std::fs::read(at("me.cert")).unwrap(), std::fs::read(at("me.key")).unwrap()].concat();
    std::fs::write(at("both.pem"), both).unwrap();
    let (_dir, repository) = server.configured(&format!("{ca}client = '{}'", at("both.pem"))).await;
    repository.resolve().await.unwrap();
}

#[tokio::test]
async fn our_certificate_is_not_shown_to_where_a_host_sends_us() {
    let authority = Authority::new();
    authority.sign("me");
    let elsewhere = TlsServer::start(&authority, "localhost", false);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let place = format!("Location: https://localhost:{}/x", elsewhere.port);
    let registry = Server::start(move |_, out| {
        count.fetch_add(1, Ordering::Relaxed);
        out.reply("307 Temporary Redirect", &[&place], b"");
    });
    let at = |name: &str| authority.path(name).display().to_string();
    let text = format!(
        "server = 'http://{}'\nca = '{}'\nclient = [['{}', '{}']]",
        registry.address,
        at("ca.crt"),
        at("me.cert"),
        at("me.key")
    );
    let (_dir, hosts) = hosts("r.example", &text);
    repository("r.example/app/x:t", RegistryOptions { hosts, ..options() }).await.resolve().await.unwrap();
    assert_eq!(elsewhere.shown(), [false]);
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    authority.sign("me");
    authority.sign("you");
    let at = |name: &str| authority.path(name).display().to_string();
    std::fs::write(at("empty.crt"), "").unwrap();
    for (extra, named) in [
        (format!("ca = '{}'", at("empty.crt")), "empty.crt"),
        (format!("ca = '{}'", at("absent.crt")), "absent.crt"),
        (format!("client = '{}'", at("me.cert")), "me.cert"),
        (format!("client = [['{}', '{}']]", at("me.cert"), at("you.key")), "you.key"),
    ] {
        let (_dir, hosts) = hosts("r.example", &format!("server = 'https://localhost:1'\n{extra}"));
        let reference = "r.example/app/x:t".parse().unwrap();
        let registry = gantry_registry::Registry::new(RegistryOptions { hosts, ..options() });
        let error = registry.repository(&reference).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn plain_http_needs_no_certificates_at_all() {
    // A server in plain HTTP, with an authority configured that nothing was signed by: TLS is tried, and given up.
    let authority = Authority::new();
    let server = Server::start(|_, out| {
        let named = format!("Docker-Content-Digest: {}", digest(&manifest()));
        let kind = format!("Content-Type: {}", media_types::OCI_MANIFEST);
        out.head("200 OK", &[&kind, &named], manifest().len());
    });
    let text = format!("server = 'http://{}'\nca = '{}'", server.address, authority.path("ca.crt").display());
    let (_dir, hosts) = hosts("r.example", &text);
    repository("r.example/app/x:t", RegistryOptions { hosts, ..options() }).await.resolve().await.unwrap();
    let options =
        RegistryOptions { hosts: HostsOptions { plain_http: true, ..Default::default() }, ..options() };
    repository(&format!("{}/app/x:t", server.address), options).await.resolve().await.unwrap();
}
