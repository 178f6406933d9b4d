//! What is told of the hosts that would be asked.

use std::sync::Arc;

use gantry_registry::credentials::ForHost;
use gantry_registry::{Credentials, Operation, Registry, RegistryOptions};

use crate::server::*;

#[tokio::test]
async fn hosts_are_told_in_order_with_the_reason_for_each() {
    let text = "
server = 'https://origin.example'
[host.'https://mirror.example:8443']
capabilities = ['pull', 'resolve']
skip_verify = true
typo = 1
[host.'https://mirror.example:8443'.header]
Authorization = 'Bearer very-secret'
";
    let (dir, hosts) = hosts("origin.example", text);
    let given = Credentials { username: "u".into(), secret: "p".into() };
    let credentials = Arc::new(ForHost::new("origin.example", given));
    let registry = Registry::new(RegistryOptions { hosts, credentials, ..options() });
    let reference = "origin.example/a/b:t".parse().unwrap();
    let told = registry.explain(&reference, Operation::Pull).await.unwrap();
    assert_eq!(told.directory, Some(dir.path().join("origin.example")));
    assert_eq!(told.warnings.len(), 1);
    let [mirror, origin] = &told.hosts[..] else { panic!("{told:?}") };
    assert_eq!(mirror.url, "https://mirror.example:8443/v2");
    assert_eq!(mirror.reason, "number 1: a mirror, its certificate is not checked");
    assert_eq!(
        (mirror.headers.as_slice(), &mirror.credentials),
        (&["authorization".to_owned()][..], &Ok(false))
    );
    assert_eq!(origin.reason, "number 2: the registry itself");
    assert_eq!(origin.credentials, Ok(true));
    assert!(!format!("{told:?}").contains("very-secret"));
    let told = registry.explain(&reference, Operation::Push).await.unwrap();
    assert!(!told.hosts[0].used);
    assert_eq!(told.hosts[0].reason, "not asked: a mirror without the capability to push");
    assert_eq!(told.hosts[1].reason, "number 1: the registry itself");
}

#[tokio::test]
async fn without_a_host_that_may_nothing_is_asked() {
    let (_dir, hosts) = hosts("r.example", "server = 'https://r.example'\ncapabilities = ['pull']\n");
    let repository = repository("r.example/a/b:t", RegistryOptions { hosts, ..options() }).await;
    let error = repository.resolve().await.unwrap_err();
    assert_eq!(error.kind(), gantry_core::ErrorKind::NotFound);
    assert!(error.to_string().contains("configured to resolve"), "{error}");
}

#[tokio::test]
async fn the_configuration_is_read_anew_for_each_repository() {
    let server = Server::start(|_, out| out.reply("404 Not Found", &[], b""));
    let (dir, hosts) = hosts("r.example", "server = 'http://127.0.0.1:1'\n");
    let registry = Registry::new(RegistryOptions { hosts, ..options() });
    let reference = "r.example/a/b:t".parse().unwrap();
    let before = registry.explain(&reference, Operation::Pull).await.unwrap();
    assert_eq!(before.hosts[0].url, "http://127.0.0.1:1/v2");
    std::fs::write(
        dir.path().join("r.example/hosts.toml"),
        format!("server = 'http://{}'\n", server.address),
    )
    .unwrap();
    let error = registry.repository(&reference).await.unwrap().resolve().await.unwrap_err();
    assert_eq!(error.kind(), gantry_core::ErrorKind::NotFound);
    assert_eq!(server.seen().len(), 1);
}
