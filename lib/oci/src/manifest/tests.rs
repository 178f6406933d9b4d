use gantry_core::ErrorKind;

use super::*;

fn digest(fill: char) -> String {
    format!("sha256:{}", fill.to_string().repeat(64))
}

fn descriptor(media_type: &str, fill: char) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":7}}"#, digest(fill))
}

fn manifest_text() -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{},{}]}}"#,
        media_types::OCI_MANIFEST,
        descriptor(media_types::OCI_CONFIG, 'c'),
        descriptor(media_types::OCI_LAYER_GZIP, '1'),
        descriptor(media_types::OCI_LAYER_GZIP, '2'),
    )
}

#[test]
fn children_of_a_manifest_are_its_config_and_then_its_layers() {
    let document = Document::parse(manifest_text().as_bytes(), media_types::OCI_MANIFEST).unwrap();
    let children: Vec<_> =
        document.children().iter().map(|child| child.descriptor.digest.hex()[..1].to_owned()).collect();
    assert_eq!(children, ["c", "1", "2"]);
}

#[test]
fn s06_a_document_that_reads_as_both_kinds_is_refused_with_either_media_type() {
    let both = format!(
        r#"{{"schemaVersion":2,"config":{c},"layers":[{l}],"manifests":[{m}]}}"#,
        c = descriptor(media_types::OCI_CONFIG, 'c'),
        l = descriptor(media_types::OCI_LAYER, '1'),
        m = descriptor(media_types::OCI_MANIFEST, 'a'),
    );
    let hidden = both.replace("\"manifests\"", "\"Manifests\"");
    let nulled =
        format!(r#"{{"manifests":[],"layers":null,"config":{}}}"#, descriptor(media_types::OCI_CONFIG, 'c'));
    for text in [&both, &hidden, &nulled] {
        for media_type in
            [media_types::OCI_MANIFEST, media_types::OCI_INDEX, media_types::DOCKER_MANIFEST_LIST, ""]
        {
            let error = Document::parse(text.as_bytes(), media_type).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{media_type}: {error}");
        }
    }
}

#[test]
fn a_document_of_the_other_kind_is_refused() {
    let error = Document::parse(manifest_text().as_bytes(), media_types::OCI_INDEX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(media_types::OCI_MANIFEST, 'a'));
    Document::parse(index.as_bytes(), media_types::OCI_MANIFEST).unwrap_err();
    Document::parse(index.as_bytes(), media_types::DOCKER_MANIFEST_LIST).unwrap();
    let lying = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_types::OCI_MANIFEST);
    Document::parse(lying.as_bytes(), "").unwrap_err();
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let twice = manifest_text().replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
    assert_eq!(Document::parse(twice.as_bytes(), "").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn null_and_unknown_fields_are_tolerated() {
    let text = format!(
        r#"{{"schemaVersion":2,"layers":null,"annotations":null,"future":[1],"config":{}}}"#,
        descriptor(media_types::DOCKER_CONFIG, 'c')
    );
    let manifest = Manifest::parse(text.as_bytes(), media_types::DOCKER_MANIFEST).unwrap();
    assert!(manifest.layers.is_empty());
}

#[test]
fn malformed_documents_are_invalid_arguments() {
    for text in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"config":{"mediaType":"a/b","digest":"sha256:zz","size":1}}"#,
        &manifest_text().replace("\"size\":7", "\"size\":-7"),
        &manifest_text().replace(media_types::OCI_CONFIG, ""),
        r#"{"fsLayers":[]}"#,
        &format!(r#"{{"config":["{}","{}",7]}}"#, media_types::OCI_CONFIG, digest('c')),
        &"[".repeat(10_000),
    ] {
        let error = Document::parse(text.as_bytes(), "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text:.60}");
        assert!(error.to_string().len() < 1000);
    }
}

#[test]
fn a_document_above_the_limit_is_refused_before_it_is_parsed() {
    let mut text = manifest_text();
    text.push_str(&" ".repeat(MAX_DOCUMENT_BYTES));
    assert_eq!(Document::parse(text.as_bytes(), "").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn what_is_written_reads_back_the_same() {
    let manifest = Manifest::parse(manifest_text().as_bytes(), "").unwrap();
    assert_eq!(Manifest::parse(&manifest.to_bytes(), media_types::OCI_MANIFEST).unwrap(), manifest);
    let index = Index {
        media_type: media_types::OCI_INDEX.into(),
        artifact_type: String::new(),
        manifests: vec![ChildDescriptor {
            platform: Some(crate::platforms::parse("linux/arm64/v8").unwrap()),
            urls: vec!["https://example.invalid/x".into()],
            ..manifest.config.clone()
        }],
        subject: Some(manifest.config.clone()),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
    };
    assert_eq!(Index::parse(&index.to_bytes(), "").unwrap(), index);
}

#[test]
fn selection_puts_the_exact_platform_first_and_drops_others() {
    let entry = |fill: char, os: &str, arch: &str, variant: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":7,"platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}}}"#,
            media_types::OCI_MANIFEST,
            digest(fill)
        )
    };
    let text = format!(
        r#"{{"manifests":[{},{},{},{},{}]}}"#,
        entry('0', "windows", "arm", "v7"),
        entry('1', "linux", "arm", "v6"),
        entry('2', "linux", "arm", "v7"),
        entry('3', "unknown", "unknown", ""),
        descriptor(media_types::OCI_MANIFEST, '4'),
    );
    let index = Index::parse(text.as_bytes(), media_types::OCI_INDEX).unwrap();
    let matcher = PlatformMatcher::only(crate::platforms::parse("linux/arm/v7").unwrap());
    let order: Vec<_> =
        index.select(&matcher).iter().map(|child| child.descriptor.digest.hex()[..1].to_owned()).collect();
    assert_eq!(order, ["2", "1", "4"]);
}
