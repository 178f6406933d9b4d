//! Messages: how large they may be, and lists cut into several.

use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use gantry_core::{Error, ItemStream, Result};
use prost::Message;
use tokio_util::sync::DropGuard;
use tonic::{Response, Status};

use crate::status::to_status;

/// The largest message, both ways. Source: features B142.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How many items a message of a streaming list holds at most. Source: observed batches of containerd.
const PAGE_ITEMS: usize = 100;
/// Past this size a message of a streaming list takes no further item.
const PAGE_BYTES: usize = 256 << 10;

/// What a streaming method answers.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

fn too_large(size: usize) -> Status {
    to_status(Error::resource_exhausted(format!(
        "trying to send message larger than max ({size} vs. {MAX_MESSAGE_BYTES})"
    )))
}

/// The answer `message`, if it is not too large.
pub(crate) fn answer<T: Message>(message: T) -> Result<Response<T>, Status> {
    let size = message.encoded_len();
    if size > MAX_MESSAGE_BYTES { Err(too_large(size)) } else { Ok(Response::new(message)) }
}

/// All items of a list that must fit in one message: it stops reading as soon as they do not.
pub(crate) async fn collect<T, P: Message>(
    mut items: ItemStream<T>,
    to_proto: impl Fn(T) -> P,
) -> Result<Vec<P>, Status> {
    let mut all = Vec::new();
    let mut size = 0;
    while let Some(item) = items.next().await {
        let item = to_proto(item.map_err(to_status)?);
        size += item.encoded_len();
        if size > MAX_MESSAGE_BYTES {
            return Err(too_large(size));
        }
        all.push(item);
    }
    Ok(all)
}

/// The items of a list, several to a message, read as the client takes them. `left` is held until the stream is dropped.
pub(crate) fn pages<T: 'static, P: Message + 'static, M: 'static>(
    items: ItemStream<T>,
    left: DropGuard,
    to_proto: impl Fn(T) -> P + Send + 'static,
    to_message: impl Fn(Vec<P>) -> M + Send + 'static,
) -> Answers<M> {
    batches(items, left, PAGE_ITEMS, to_proto, to_message)
}

/// The items of a list, one to a message.
pub(crate) fn singles<T: 'static, P: Message + 'static, M: 'static>(
    items: ItemStream<T>,
    left: DropGuard,
    to_proto: impl Fn(T) -> P + Send + 'static,
    to_message: impl Fn(P) -> M + Send + 'static,
) -> Answers<M> {
    let to_message = move |mut items: Vec<P>| to_message(items.pop().expect("a batch is never empty"));
    batches(items, left, 1, to_proto, to_message)
}

fn batches<T: 'static, P: Message + 'static, M: 'static>(
    items: ItemStream<T>,
    left: DropGuard,
    most: usize,
    to_proto: impl Fn(T) -> P + Send + 'static,
    to_message: impl Fn(Vec<P>) -> M + Send + 'static,
) -> Answers<M> {
    let state = Some((items, left, to_proto, to_message));
    unfold(state, move |state| async move {
        let (mut items, left, to_proto, to_message) = state?;
        let mut page = Vec::new();
        let mut size = 0;
        while page.len() < most && size < PAGE_BYTES {
            match items.next().await {
                None => break,
                Some(Err(error)) => return Some((Err(to_status(error)), None)),
                Some(Ok(item)) => {
                    let item = to_proto(item);
                    let length = item.encoded_len();
                    if length > MAX_MESSAGE_BYTES {
                        return Some((Err(too_large(length)), None));
                    }
                    size += length;
                    page.push(item);
                }
            }
        }
        if page.is_empty() {
            return None;
        }
        Some((Ok(to_message(page)), Some((items, left, to_proto, to_message))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream::iter;
    use gantry_api::grpc::health::v1::HealthCheckRequest as Text;
    use tokio_util::sync::CancellationToken;

    fn guard() -> DropGuard {
        CancellationToken::new().drop_guard()
    }

    #[tokio::test]
    async fn lists_are_cut_by_number_and_by_size() {
        let numbers: ItemStream<usize> = iter((0..250).map(Ok)).boxed();
        let pages_of = |items, size: usize| {
            pages(items, guard(), move |_| Text { service: "x".repeat(size) }, |page| page.len())
                .map(|page| page.unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(pages_of(numbers, 1).await, [100, 100, 50]);
        let numbers: ItemStream<usize> = iter((0..3).map(Ok)).boxed();
        assert_eq!(pages_of(numbers, 200 << 10).await, [2, 1]);
    }

    #[tokio::test]
    async fn a_list_above_the_limit_stops_being_read() {
        let endless: ItemStream<usize> = iter((0..).map(Ok)).boxed();
        let all = collect(endless, |_| Text { service: "x".repeat(1 << 20) }).await;
        assert_eq!(all.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
