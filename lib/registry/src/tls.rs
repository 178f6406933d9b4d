//! Encryption: whom we trust, and what we show.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use gantry_core::{Error, Result, ResultExt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::hosts::TlsSettings;

const MAX_PEM_BYTES: u64 = 4 << 20;

/// The certificates that this system trusts. A system without any is no error here: plain HTTP, and hosts with a `ca`
/// of their own, need none.
pub(crate) fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "certificates of the system");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

/// How to talk to a host with these settings. Reads files, so it blocks.
///
/// # Errors
/// Those of reading the files; `InvalidArgument` if one holds no certificate or key, naming it.
pub(crate) fn client_config(settings: &TlsSettings, system: &RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS: {error}")))?;
    let builder = if settings.skip_verify == Some(true) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(&provider))))
    } else {
        let mut roots = system.clone();
        for path in &settings.ca {
            let certificates = certificates(path)?;
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(Error::invalid_argument(format!("{} holds no CA certificate", path.display())));
            }
        }
        if roots.is_empty() {
            // There is no verifier without roots; with this one, a handshake fails and says why.
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NoServer(Arc::clone(&provider))))
        } else {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| Error::internal(format!("TLS: {error}")))?;
            builder.with_webpki_verifier(verifier)
        }
    };
    let mut keys = Vec::new();
    for (certificate, key) in &settings.client {
        let chain = certificates(certificate)?;
        let key_path = key.as_ref().unwrap_or(certificate);
        let key = private_key(key_path)?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            Error::invalid_argument(format!("{} and {}: {error}", certificate.display(), key_path.display()))
        })?;
        keys.push(Arc::new(certified));
    }
    let mut config = if keys.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(OwnKeys(keys)))
    };
    // One connection per transfer: a stalled one can be given up without the others, and one flow is one window.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::io(error).context(format!("read {}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(Error::invalid_argument(format!(
            "{} is longer than {MAX_PEM_BYTES} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::invalid_argument(error.to_string()))
        .with_context(|| format!("certificates of {}", path.display()))?;
    if found.is_empty() {
        return Err(Error::invalid_argument(format!("{} holds no certificate", path.display())));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| Error::invalid_argument(format!("private key of {}: {error}", path.display())))
}

/// Our certificates; the first that fits is shown.
#[derive(Debug)]
struct OwnKeys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for OwnKeys {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|own| own.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

macro_rules! verify_signatures_with_the_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Believes anybody: `skip_verify`.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures_with_the_provider!();
}

/// Believes nobody: the system has no certificates.
#[derive(Debug)]
struct NoServer(Arc<CryptoProvider>);

impl ServerCertVerifier for NoServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(rustls::Error::General(
            "this system has no CA certificates: install ca-certificates, or name a ca for the host".into(),
        ))
    }

    verify_signatures_with_the_provider!();
}
