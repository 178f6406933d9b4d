//! Images.

use gantry_api::Timestamp;
use gantry_api::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, UpdateImageRequest,
};
use gantry_api::containerd::types::Descriptor;
use gantry_testkit::root;
use tonic::{Code, Status};

use crate::support::{Wire, code, descriptor, digest_of, image, in_test, is_there, mask, pairs, refused};

async fn create(wire: &Wire, image: Image) -> Result<Image, Status> {
    let request = CreateImageRequest { image: Some(image), ..Default::default() };
    wire.images().create(in_test(request)).await.map(|answer| answer.into_inner().image.unwrap())
}

async fn update(wire: &Wire, image: Image, paths: &[&str]) -> Result<Image, Status> {
    let update_mask = if paths.is_empty() { None } else { mask(paths) };
    let request = UpdateImageRequest { image: Some(image), update_mask, ..Default::default() };
    wire.images().update(in_test(request)).await.map(|answer| answer.into_inner().image.unwrap())
}

#[tokio::test]
async fn a_target_needs_a_digest_a_media_type_and_a_size() {
    root!();
    let wire = Wire::start();
    let good = descriptor(&digest_of("absent"));
    for digest in ["", "none", "sha256:abc", "sha256", &format!("md5:{}", "0".repeat(32))] {
        let target = Descriptor { digest: digest.into(), ..good.clone() };
        let image = Image { target: Some(target), ..image("i", "", &[]) };
        assert_eq!(code(create(&wire, image).await), Code::InvalidArgument, "{digest:?}");
    }
    for bad in [
        Descriptor { media_type: String::new(), ..good.clone() },
        Descriptor { size: 0, ..good.clone() },
        Descriptor { size: -1, ..good.clone() },
    ] {
        let image = Image { target: Some(bad.clone()), ..image("i", "", &[]) };
        assert_eq!(code(create(&wire, image).await), Code::InvalidArgument, "{bad:?}");
    }
    let target = Descriptor { media_type: "any text, \n really".into(), ..good };
    create(&wire, Image { target: Some(target), ..image("i", "", &[]) }).await.unwrap();
}

#[tokio::test]
async fn a_mask_names_labels_target_or_annotations() {
    root!();
    let wire = Wire::start();
    let (first, second) = (digest_of("first"), digest_of("second"));
    let annotated = |digest: &str, annotations: &[(&str, &str)], labels: &[(&str, &str)]| {
        let target = Descriptor { annotations: pairs(annotations), ..descriptor(digest) };
        Image { target: Some(target), ..image("i", digest, labels) }
    };
    create(&wire, annotated(&first, &[("a", "1"), ("b", "1")], &[("a", "1"), ("b", "1")])).await.unwrap();
    let given = || annotated(&second, &[("a", "2"), ("c", "2")], &[("a", "2"), ("x.y", "2")]);
    let seen = |image: Image| {
        let target = image.target.unwrap();
        (image.labels, target.digest, target.annotations)
    };
    let mut labels = pairs(&[("a", "2"), ("b", "1"), ("x.y", "2")]);
    let mut annotations = pairs(&[("a", "1"), ("b", "1")]);
    let answer = update(&wire, given(), &["labels.a", "labels.x.y"]).await.unwrap();
    assert_eq!(seen(answer), (labels.clone(), first.clone(), annotations.clone()));
    let answer = update(&wire, given(), &["annotations.a"]).await.unwrap();
    annotations.insert("a".into(), "2".into());
    assert_eq!(seen(answer), (labels.clone(), first.clone(), annotations));
    let answer = update(&wire, given(), &["annotations"]).await.unwrap();
    let annotations = pairs(&[("a", "2"), ("c", "2")]);
    assert_eq!(seen(answer), (labels.clone(), first.clone(), annotations.clone()));
    let answer = update(&wire, given(), &["labels"]).await.unwrap();
    labels.remove("b");
    assert_eq!(seen(answer), (labels.clone(), first, annotations.clone()));
    let answer = update(&wire, given(), &["target"]).await.unwrap();
    assert_eq!(seen(answer), (labels, second.clone(), annotations));
    let plain = image("i", &second, &[("z", "3"), ("empty", "")]);
    let answer = update(&wire, plain, &[]).await.unwrap();
    assert_eq!(seen(answer), (pairs(&[("z", "3")]), second.clone(), pairs(&[])));
    for path in ["name", "created_at", "target.digest", "label"] {
        assert_eq!(code(update(&wire, given(), &[path]).await), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn a_target_is_checked_even_if_the_mask_names_labels_only() {
    root!();
    let wire = Wire::start();
    let digest = digest_of("absent");
    create(&wire, image("i", &digest, &[])).await.unwrap();
    let bad = Descriptor { size: 0, ..descriptor(&digest) };
    let bad = Image { target: Some(bad), ..image("i", &digest, &[("a", "1")]) };
    let answer = update(&wire, bad, &["labels"]).await;
    // 1.6 stores what the mask makes of it, and looks at that.
    let wanted = if wire.since_2() { Code::InvalidArgument } else { Code::Ok };
    assert_eq!(code(answer), wanted);
}

#[tokio::test]
async fn created_at_never_changes_and_source_date_epoch_sets_the_times() {
    root!();
    let wire = Wire::start();
    let digest = digest_of("absent");
    let given = Timestamp { seconds: 1000, nanos: 0 };
    let timed = Image { created_at: Some(given), updated_at: Some(given), ..image("i", &digest, &[]) };
    let made = create(&wire, timed.clone()).await.unwrap();
    assert!(made.created_at.is_some_and(|time| time.seconds > 1000), "{made:?}");
    assert_eq!(made.created_at, made.updated_at);
    let changed = update(&wire, timed, &["labels"]).await.unwrap();
    assert_eq!(changed.created_at, made.created_at);
    assert!(changed.updated_at.unwrap().seconds >= made.updated_at.unwrap().seconds);
    if !wire.since_2() {
        return; // 1.6 has no source_date_epoch.
    }
    let request = UpdateImageRequest {
        image: Some(image("i", &digest, &[])),
        source_date_epoch: Some(given),
        ..Default::default()
    };
    let answer = wire.images().update(in_test(request)).await.unwrap().into_inner().image.unwrap();
    assert_eq!((answer.created_at, answer.updated_at), (made.created_at, Some(given)));
    let request =
        CreateImageRequest { image: Some(image("j", &digest, &[])), source_date_epoch: Some(given) };
    let answer = wire.images().create(in_test(request)).await.unwrap().into_inner().image.unwrap();
    assert_eq!((answer.created_at, answer.updated_at), (Some(given), Some(given)));
}

#[tokio::test]
async fn a_delete_with_a_target_looks_at_its_digest_only() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return; // 1.6 has no such condition.
    }
    let digest = digest_of("absent");
    let delete = async |target| {
        let request = DeleteImageRequest { name: "i".into(), sync: false, target };
        wire.images().delete(in_test(request)).await
    };
    create(&wire, image("i", &digest, &[])).await.unwrap();
    assert_eq!(code(delete(Some(descriptor(&digest_of("other")))).await), Code::NotFound);
    assert!(is_there(wire.images().get(in_test(GetImageRequest { name: "i".into() })).await));
    let other = Descriptor { media_type: "another".into(), size: 77, ..descriptor(&digest) };
    delete(Some(other)).await.unwrap();
    create(&wire, image("i", &digest, &[])).await.unwrap();
    delete(Some(Descriptor::default())).await.expect("an empty target is no condition");
    assert_eq!(code(delete(None).await), Code::NotFound);
}

#[tokio::test]
async fn an_absent_image_or_target_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    let mut images = wire.images();
    let invalid = Code::InvalidArgument;
    refused(images.create(in_test(CreateImageRequest::default())).await, invalid, "\"image\"");
    refused(images.update(in_test(UpdateImageRequest::default())).await, invalid, "\"image\"");
    let bare = Image { name: "i".into(), ..Default::default() };
    refused(create(&wire, bare.clone()).await, invalid, "\"image.target\"");
    refused(update(&wire, bare, &["labels"]).await, invalid, "\"image.target\"");
}
