use std::fs;

use gantry_core::ErrorKind;
use tempfile::TempDir;

use super::*;

fn dir_with(files: &[(&str, &str)]) -> (TempDir, HostsOptions) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let options = HostsOptions { dirs: vec![dir.path().to_owned()], ..Default::default() };
    (dir, options)
}

fn urls(plan: &HostPlan) -> Vec<String> {
    plan.hosts.iter().map(RegistryHost::url).collect()
}

#[test]
fn without_configuration_the_registry_itself_is_asked() {
    let url = |registry: &str, options: &HostsOptions| {
        let plan = plan(registry, options).unwrap();
        assert_eq!(plan.hosts.len(), 1);
        let host = &plan.hosts[0];
        (host.url(), host.plain_fallback, host.tls.skip_verify)
    };
    let none = HostsOptions::default();
    assert_eq!(url("docker.io", &none), ("https://registry-1.docker.io/v2".into(), false, None));
    assert_eq!(url("quay.example:8443", &none), ("https://quay.example:8443/v2".into(), false, None));
    assert_eq!(url("localhost", &none), ("https://localhost/v2".into(), false, Some(true)));
    assert_eq!(url("localhost:80", &none), ("http://localhost:80/v2".into(), false, None));
    assert_eq!(url("127.0.0.1:5000", &none), ("https://127.0.0.1:5000/v2".into(), true, Some(true)));
    assert_eq!(url("[::1]:5000", &none), ("https://[::1]:5000/v2".into(), true, Some(true)));
    let plain = HostsOptions { plain_http: true, ..Default::default() };
    assert_eq!(url("quay.example", &plain), ("http://quay.example/v2".into(), false, None));
    assert_eq!(url("docker.io", &plain).0, "https://registry-1.docker.io/v2");
    let tls = HostsOptions {
        tls: TlsSettings { skip_verify: Some(true), ..Default::default() },
        ..Default::default()
    };
    assert_eq!(url("quay.example", &tls), ("https://quay.example/v2".into(), false, Some(true)));
}

#[test]
fn hosts_keep_the_order_of_the_file_and_the_server_comes_last() {
    let (_dir, options) = dir_with(&[(
        "docker.io/hosts.toml",
        r#"
server = "https://registry-1.docker.io"
capabilities = ["pull"]

[host."https://z.example"]
  capabilities = ["pull", "Resolve"]
[host."http://a.example:5000/prefix"]
  skip_verify = true
[host."m.example/x/v2"]
  [host."m.example/x/v2".header]
    X-Token = "t"
    X-List = ["a", "b"]
[host."https://b.example/cache"]
  override_path = true
  dial_timeout = "1m30s"
"#,
    )]);
    let plan = plan("docker.io", &options).unwrap();
    assert_eq!(
        urls(&plan),
        [
            "https://z.example/v2",
            "https://a.example:5000/prefix/v2",
            "https://m.example/x/v2",
            "https://b.example/cache",
            "https://registry-1.docker.io/v2",
        ]
    );
    let [z, a, m, b, server] = &plan.hosts[..] else { panic!() };
    assert_eq!(z.capabilities, Capabilities { pull: true, resolve: true, ..Capabilities::NONE });
    // Plain, with TLS configured: TLS is tried first.
    assert!(a.plain_fallback);
    assert_eq!(m.headers.get_all("x-list").iter().count(), 2);
    assert_eq!(b.dial_timeout, Some(Duration::from_secs(90)));
    assert!(server.is_origin && !z.is_origin);
    assert_eq!(server.capabilities, Capabilities { pull: true, ..Capabilities::NONE });
    assert!(plan.warnings.is_empty());
}

#[test]
fn without_a_server_the_registry_itself_comes_last() {
    let (dir, options) = dir_with(&[("r.example/hosts.toml", "ca = 'ca.pem'\n[host.'https://m.example']\n")]);
    let plan = plan("r.example", &options).unwrap();
    assert_eq!(urls(&plan), ["https://m.example/v2", "https://r.example/v2"]);
    assert_eq!(plan.hosts[1].tls.ca, [dir.path().join("r.example/ca.pem")]);
    assert!(plan.hosts[0].tls.ca.is_empty());
}

#[test]
fn ports_are_found_in_both_spellings_and_the_default_comes_last() {
    let server = |name: &str| format!("server = 'https://{name}.example'\n");
    let (one, two, three, four) = (server("one"), server("two"), server("three"), server("four"));
    let (_dir, options) = dir_with(&[
        ("_default/hosts.toml", &four),
        ("h_5000_/hosts.toml", &one),
        ("h:5000/hosts.toml", &two),
        ("h:6000/hosts.toml", &three),
    ]);
    for (registry, expected) in [("h:5000", "one"), ("h:6000", "three"), ("h:7000", "four"), ("h", "four")] {
        assert_eq!(
            urls(&plan(registry, &options).unwrap()),
            [format!("https://{expected}.example/v2")],
            "{registry}"
        );
    }
}

#[test]
fn a_registrys_own_directory_counts_before_a_default_in_an_earlier_place() {
    let (first, _) = dir_with(&[("_default/hosts.toml", "server = 'https://default.example'")]);
    let (second, _) = dir_with(&[("r.example/hosts.toml", "server = 'https://own.example'")]);
    let text = format!("{}:{}", first.path().display(), second.path().display());
    let options = HostsOptions::with_dirs(&text);
    assert_eq!(urls(&plan("r.example", &options).unwrap()), ["https://own.example/v2"]);
    assert_eq!(urls(&plan("s.example", &options).unwrap()), ["https://default.example/v2"]);
}

#[test]
fn certificates_are_taken_in_dockers_layout() {
    let (dir, options) = dir_with(&[
        ("r.example/ca.crt", ""),
        ("r.example/me.cert", ""),
        ("r.example/me.key", ""),
        ("r.example/both.cert", ""),
        ("r.example/readme", ""),
    ]);
    let plan = plan("r.example", &options).unwrap();
    let at = |name: &str| dir.path().join("r.example").join(name);
    assert_eq!(plan.hosts[0].tls.ca, [at("ca.crt")]);
    assert_eq!(plan.hosts[0].tls.client, [(at("both.cert"), None), (at("me.cert"), Some(at("me.key")))]);
}

#[test]
fn a_file_that_does_not_parse_is_told_of_and_certificates_count() {
    for text in [
        "server = ",
        "capabilities = ['fly']",
        "[host.'ftp://x']",
        "[host.'https://u:p@x']",
        "ca = 5",
        "client = [['a','b','c']]",
        "dial_timeout = 'soon'",
        "header = { 'a b' = 'c' }",
        "skip_verify = 'yes'",
        "host = 5",
    ] {
        let (_dir, options) = dir_with(&[("r.example/hosts.toml", text), ("r.example/ca.crt", "")]);
        let plan = plan("r.example", &options).unwrap();
        assert_eq!(urls(&plan), ["https://r.example/v2"], "{text}");
        assert_eq!(plan.hosts[0].tls.ca.len(), 1, "{text}");
        assert!(plan.warnings[0].contains("hosts.toml"), "{:?}", plan.warnings);
    }
}

#[test]
fn unknown_keys_are_told_of() {
    let (_dir, options) =
        dir_with(&[("r.example/hosts.toml", "sever = 'x'\n[host.'https://m']\ncapability = []\n")]);
    let plan = plan("r.example", &options).unwrap();
    assert_eq!(plan.warnings.len(), 2);
    assert!(plan.warnings.iter().any(|warning| warning.contains("sever")));
    assert_eq!(plan.hosts.len(), 2);
}

#[test]
fn clients_are_read_in_each_form() {
    for (text, expected) in [
        ("client = 'a.pem'", vec![("a.pem", None)]),
        ("client = ['a.pem', 'b.pem']", vec![("a.pem", None), ("b.pem", None)]),
        (
            "client = [['a.cert', 'a.key'], ['b.cert', '/b.key']]",
            vec![("a.cert", Some("a.key")), ("b.cert", Some("/b.key"))],
        ),
        ("client = ['a.pem', ['b.cert', 'b.key']]", vec![("a.pem", None), ("b.cert", Some("b.key"))]),
    ] {
        let (dir, options) = dir_with(&[("r.example/hosts.toml", text)]);
        let base = dir.path().join("r.example");
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(cert, key)| (base.join(cert), key.map(|key| base.join(key))))
            .collect();
        assert_eq!(plan("r.example", &options).unwrap().hosts[0].tls.client, expected, "{text}");
    }
}

#[test]
fn hosts_that_are_paths_are_refused() {
    for registry in ["", "..", ".", "_default", "a/b", "a\0"] {
        assert_eq!(plan(registry, &HostsOptions::default()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn callers_headers_go_to_the_registry_and_not_to_its_mirrors() {
    let (_dir, mut options) = dir_with(&[("r.example/hosts.toml", "[host.'https://m.example']\n")]);
    options.headers.insert("x-secret", http::HeaderValue::from_static("s"));
    let plan = plan("r.example", &options).unwrap();
    assert!(plan.hosts[0].headers.is_empty());
    assert_eq!(plan.hosts[1].headers.len(), 1);
}
