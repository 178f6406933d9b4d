//! Resolving against servers that are right, wrong, slow and hostile.

use crate::server::*;
use gantry_core::ErrorKind;
use gantry_oci::media_types;
use gantry_registry::proxy::ProxySettings;
use gantry_registry::{HostsOptions, RegistryOptions};

fn type_line() -> String {
    format!("Content-Type: {}", media_types::OCI_MANIFEST)
}

fn digest_line() -> String {
    format!("Docker-Content-Digest: {}", digest(&manifest()))
}

#[tokio::test]
async fn a_tag_is_resolved_from_headers_alone() {
    let server =
        Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    let resolved = at(&server).await.resolve().await.unwrap();
    assert_eq!(resolved.descriptor, descriptor(media_types::OCI_MANIFEST, &manifest()));
    assert_eq!(resolved.host, server.address);
    assert_eq!(resolved.document, None);
    assert_eq!(server.lines(), ["HEAD /v2/app/x/manifests/t"]);
    assert!(server.seen()[0].header("accept").unwrap().contains(media_types::DOCKER_MANIFEST_LIST));
    assert!(server.seen()[0].header("user-agent").unwrap().starts_with("gantry/"));
}

#[tokio::test]
async fn what_headers_do_not_tell_the_document_does() {
    for head in ["405 Method Not Allowed", "200 OK"] {
        let server = Server::start(move |seen, out| match seen.method.as_str() {
            "HEAD" => out.head(head, &[], 0),
            _ => out.reply("200 OK", &["Content-Type: text/plain"], &manifest()),
        });
        let resolved = at(&server).await.resolve().await.unwrap();
        assert_eq!(resolved.descriptor, descriptor(media_types::OCI_MANIFEST, &manifest()), "{head}");
        assert_eq!(&resolved.document.unwrap()[..], &manifest()[..]);
    }
}

#[tokio::test]
async fn a_document_without_the_digest_that_its_header_names_is_refused() {
    let server = Server::start(|seen, out| match seen.method.as_str() {
        "HEAD" => out.head("405 No", &[], 0),
        _ => {
            let lie = format!("Docker-Content-Digest: {}", digest(b"another"));
            out.reply("200 OK", &[&type_line(), &lie], &manifest());
        }
    });
    let error = at(&server).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn a_host_that_offers_another_digest_than_asked_for_is_refused() {
    let server =
        Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    let name = format!("{}/app/x@{}", server.address, digest(b"wanted"));
    let options =
        RegistryOptions { hosts: HostsOptions { plain_http: true, ..Default::default() }, ..options() };
    let error = repository(&name, options).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn statuses_become_errors_that_name_host_reference_and_step() {
    for (status, kind) in [
        ("404 Not Found", ErrorKind::NotFound),
        ("401 Unauthorized", ErrorKind::Unauthenticated),
        ("403 Forbidden", ErrorKind::PermissionDenied),
        ("400 Bad Request", ErrorKind::InvalidArgument),
    ] {
        let server = Server::start(move |_, out| {
            out.reply(
                status,
                &["Content-Type: application/json"],
                br#"{"errors":[{"code":"X","message":"the words"}]}"#,
            );
        });
        let error = at(&server).await.resolve().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        let reference = format!("resolve {}/app/x:t", server.address);
        assert!(text.contains(&reference) && text.contains(&format!("host {}", server.address)), "{text}");
        if kind == ErrorKind::PermissionDenied {
            assert!(text.contains("X: the words"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_busy_host_is_asked_again() {
    let answers = std::sync::atomic::AtomicUsize::new(0);
    let server =
        Server::start(move |_, out| match answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => out.reply("429 Too Many Requests", &["Retry-After: 0"], b""),
            1 => out.reply("503 Service Unavailable", &[], b""),
            // No answer at all.
            2 => {}
            _ => out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()),
        });
    at(&server).await.resolve().await.unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_host_that_stays_busy_is_unavailable_in_the_end() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "500 Oh"] {
        let server = Server::start(move |_, out| out.reply(status, &[], b""));
        let error = at(&server).await.resolve().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(server.seen().len(), 5, "{status}");
    }
}

#[tokio::test]
async fn an_endless_manifest_is_cut_off() {
    let server = Server::start(|seen, out| {
        if seen.method == "HEAD" {
            return out.head("405 No", &[], 0);
        }
        out.bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
        // Far more than is ever read.
        for _ in 0..4096 {
            if std::io::Write::write_all(out.0, &chunk).is_err() {
                break;
            }
        }
    });
    let error = at(&server).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
}

#[tokio::test]
async fn a_manifest_said_to_be_huge_is_not_fetched() {
    let server = Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], 20 << 30));
    let error = at(&server).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn s06_an_ambiguous_document_is_refused_with_either_media_type() {
    for media_type in [media_types::OCI_MANIFEST, media_types::OCI_INDEX] {
        let server = Server::start(move |seen, out| match seen.method.as_str() {
            "HEAD" => out.head("405 No", &[], 0),
            _ => {
                let text = String::from_utf8(manifest()).unwrap().replacen('{', r#"{"manifests":[],"#, 1);
                out.reply("200 OK", &[&format!("Content-Type: {media_type}")], text.as_bytes());
            }
        });
        let error = at(&server).await.resolve().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn dockers_first_schema_is_not_read() {
    let server = Server::start(|_, out| {
        let old = format!("Content-Type: {}", media_types::DOCKER_SCHEMA1_MANIFEST);
        out.head("200 OK", &[&old, &digest_line()], manifest().len());
    });
    assert_eq!(at(&server).await.resolve().await.unwrap_err().kind(), ErrorKind::Unimplemented);
}

#[tokio::test]
async fn an_unreachable_host_is_unavailable() {
    let gone = Server::start(|_, _| {});
    let address = gone.address.clone();
    drop(gone);
    let options =
        RegistryOptions { hosts: HostsOptions { plain_http: true, ..Default::default() }, ..options() };
    let error = repository(&format!("{address}/a:t"), options).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_plain_registry_on_this_machine_is_found_without_being_told() {
    let server =
        Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    repository(&format!("{}/a:t", server.address), options()).await.resolve().await.unwrap();
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_the_registry_last() {
    let busy = Server::start(|_, out| out.reply("503 Busy", &[], b""));
    let empty = Server::start(|_, out| out.reply("404 Not Found", &[], b""));
    let blind = Server::start(|_, _| panic!("has no capability to resolve"));
    let origin =
        Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    let text = format!(
        "server = 'http://{}'\n[host.'http://{}']\n[host.'http://{}']\ncapabilities = ['pull']\n[host.'http://{}']\n",
        origin.address, busy.address, blind.address, empty.address
    );
    let (_dir, hosts) = hosts("r.example", &text);
    let repository = repository("r.example/app/x:t", RegistryOptions { hosts, ..options() }).await;
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(resolved.host, origin.address);
    // Trouble at a mirror is not worth waiting for.
    assert_eq!(busy.lines(), ["HEAD /v2/app/x/manifests/t?ns=r.example"]);
    assert_eq!(empty.seen().len(), 1);
    assert!(blind.seen().is_empty());
}

#[tokio::test]
async fn headers_of_the_configuration_go_to_their_host() {
    let server =
        Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    let text = format!(
        "[host.'http://{}']\n[host.'http://{}'.header]\nX-Own = 'yes'\n",
        server.address, server.address
    );
    let (_dir, hosts) = hosts("r.example", &text);
    repository("r.example/app/x:t", RegistryOptions { hosts, ..options() }).await.resolve().await.unwrap();
    assert_eq!(server.seen()[0].header("x-own"), Some("yes"));
}

#[tokio::test]
async fn a_proxy_is_asked_for_hosts_that_are_elsewhere() {
    let proxy = Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    let settings = ProxySettings {
        http: Some(proxy.address.clone()),
        no_proxy: Some("direct.invalid".into()),
        ..ProxySettings::default()
    };
    let options = || RegistryOptions {
        hosts: HostsOptions { plain_http: true, ..Default::default() },
        proxy: settings.clone(),
        ..options()
    };
    repository("r.invalid/app/x:t", options()).await.resolve().await.unwrap();
    assert_eq!(proxy.lines(), ["HEAD http://r.invalid/v2/app/x/manifests/t"]);
    // Not for those that are excepted, nor for this machine.
    repository("direct.invalid/app/x:t", options()).await.resolve().await.unwrap_err();
    let here = Server::start(|_, out| out.head("200 OK", &[&type_line(), &digest_line()], manifest().len()));
    repository(&format!("{}/app/x:t", here.address), options()).await.resolve().await.unwrap();
    assert_eq!(proxy.seen().len(), 1);
}
