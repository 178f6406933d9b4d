//! What a server offers: services by name, methods by name.

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::{Error, Result};

use crate::{CallContext, ServerStream};

/// How a streaming method ends when it succeeds.
#[derive(Debug)]
pub enum Reply {
    /// All was said in the stream.
    End,
    /// One message ends it: the method streams only from the client.
    Message(Bytes),
}

/// One service: methods that take an encoded message and answer one.
#[async_trait]
pub trait Service: Send + Sync {
    /// Calls `method` with one message.
    ///
    /// # Errors
    /// `Unimplemented` if there is no such method; `InvalidArgument` if the message does not decode; otherwise the method's own.
    async fn call(&self, method: &str, payload: Bytes, cx: CallContext) -> Result<Bytes>;

    /// Whether `method` is a streaming one; those go to [`Service::stream`].
    fn is_stream(&self, _method: &str) -> bool {
        false
    }

    /// Runs a streaming `method`. The request's own message, if it had one, is the first of `stream`.
    ///
    /// # Errors
    /// As for [`Service::call`].
    async fn stream(&self, method: &str, _stream: ServerStream, _cx: CallContext) -> Result<Reply> {
        Err(no_method(method))
    }
}

/// The error of a method that a service does not have.
pub fn no_method(method: &str) -> Error {
    Error::unimplemented(format!("method {}", shown(method)))
}

pub(crate) fn no_service(service: &str) -> Error {
    Error::unimplemented(format!("service {}", shown(service)))
}

/// A name from a peer, short enough to be part of an answer.
fn shown(name: &str) -> &str {
    match name.char_indices().nth(128) {
        Some((end, _)) => &name[..end],
        None => name,
    }
}

/// Decodes a request message.
///
/// # Errors
/// `InvalidArgument` if it does not decode.
pub fn decode<M: prost::Message + Default>(payload: Bytes) -> Result<M> {
    M::decode(payload).map_err(|error| Error::invalid_argument(format!("unmarshal request error: {error}")))
}

/// Encodes a response message.
pub fn encode<M: prost::Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}
