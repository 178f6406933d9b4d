//! All services: what a message may be.

use gantry_api::Any;
use gantry_api::containerd::services::containers::v1::{
    Container, CreateContainerRequest, GetContainerRequest, ListContainersRequest,
};
use gantry_api::containerd::services::content::v1::WriteContentRequest;
use gantry_api::containerd::services::diff::v1::ApplyRequest;
use gantry_api::containerd::services::diff::v1::diff_client::DiffClient;
use gantry_api::containerd::services::tasks::v1::{ExecProcessRequest, UpdateTaskRequest};
use gantry_testkit::root;
use prost::Message as _;
use tonic::Code;

use crate::raw;
use crate::support::{Wire, code, container, in_test, refused};
use crate::write::{Writing, write};

const MIB: usize = 1 << 20;
const GET: &str = "/containerd.services.containers.v1.Containers/Get";

#[tokio::test]
async fn a_message_above_16_mib_is_exhausted_in_both_directions() {
    root!();
    let wire = Wire::start();
    let big = |id: &str, size: usize| {
        let spec = Some(Any { type_url: "example.com/Spec".into(), value: vec![0; size] });
        CreateContainerRequest { container: Some(Container { spec, ..container(id, &[]) }) }
    };
    let answer = wire.containers().create(in_test(big("too-big", 17 * MIB))).await;
    assert_eq!(code(answer), Code::ResourceExhausted);
    let data = WriteContentRequest { data: vec![0; 17 * MIB].into(), ..write("r", 0, "") };
    assert_eq!(code(Writing::open(&wire, data).await), Code::ResourceExhausted);
    let mut client = wire.containers().max_decoding_message_size(64 * MIB);
    for id in ["a", "b", "c", "d"] {
        client.create(in_test(big(id, 5 * MIB))).await.unwrap();
    }
    let answer = client.list(in_test(ListContainersRequest::default())).await;
    assert_eq!(code(answer), Code::ResourceExhausted);
    let request = in_test(ListContainersRequest::default());
    let mut stream = client.list_stream(request).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.container.unwrap().spec.unwrap().value.len(), 5 * MIB);
        count += 1;
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn a_request_that_does_not_parse_is_internal() {
    root!();
    let wire = Wire::start();
    // Field 1 of five bytes, of which one is there; a field number 0.
    for bytes in [b"\x0a\x05x" as &[u8], b"\x00"] {
        let answer = raw::call(&wire, GET, in_test(bytes.to_vec())).await;
        assert_eq!(code(answer), Code::Internal, "{bytes:?}");
    }
    let not_utf_8 = raw::call(&wire, GET, in_test(b"\x0a\x02\xff\xfe".to_vec())).await;
    // 1.6 does not look at what a string holds.
    assert_eq!(code(not_utf_8), if wire.since_2() { Code::Internal } else { Code::NotFound });
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_unknown_methods_unimplemented() {
    root!();
    let wire = Wire::start();
    wire.container("c", &[]).await;
    let mut request = GetContainerRequest { id: "c".into() }.encode_to_vec();
    // Field 1000 is the string "later".
    request.extend_from_slice(b"\xc2\x3e\x05later");
    raw::call(&wire, GET, in_test(request)).await.unwrap();
    for method in [
        "/containerd.services.containers.v1.Containers/Rename",
        "/containerd.services.containers.v9.Containers/Get",
        "/nobody.Knows/This",
    ] {
        let answer = raw::call(&wire, method, in_test(Vec::new())).await;
        assert_eq!(code(answer), Code::Unimplemented, "{method}");
    }
}

#[tokio::test]
async fn absent_sub_messages_of_diffs_and_tasks_are_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    let apply = DiffClient::new(wire.channel.clone()).apply(in_test(ApplyRequest::default())).await;
    refused(apply, Code::InvalidArgument, "\"diff\"");
    let exec = ExecProcessRequest { exec_id: "e".into(), ..Default::default() };
    refused(wire.tasks().exec(in_test(exec)).await, Code::InvalidArgument, "\"spec\"");
    let update = wire.tasks().update(in_test(UpdateTaskRequest::default())).await;
    refused(update, Code::InvalidArgument, "\"resources\"");
}
