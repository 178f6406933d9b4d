//! What every remote end is made of.

use futures_util::stream::{StreamExt as _, iter};
use gantry_core::{Error, ItemStream, Result};
use tonic::Streaming;

use crate::status::from_status;

/// A remote end over a channel. Clones share the connection.
macro_rules! remote {
    ($(#[$doc:meta])* $name:ident, $client:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            client: $client,
        }

        impl $name {
            /// Calls over `channel`.
            pub fn new(channel: tonic::transport::Channel) -> Self {
                let client = <$client>::new(channel)
                    .max_decoding_message_size($crate::MAX_MESSAGE_BYTES)
                    .max_encoding_message_size($crate::MAX_MESSAGE_BYTES);
                $name { client }
            }
        }
    };
}

/// The answer of one call, or the caller's early return.
macro_rules! ask {
    ($self:ident.$method:ident($cx:expr, $message:expr)) => {{
        let mut client = $self.client.clone();
        let request = $crate::call::request($cx, $message)?;
        $crate::call::answer($cx, client.$method(request)).await?
    }};
}

pub(crate) use {ask, remote};

/// What an answer must hold.
pub(crate) fn answered<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or_else(|| Error::internal(format!("the answer has no {field}")))
}

/// The items of a streaming list.
pub(crate) fn items<M: Send + 'static, T: Send + 'static, I>(
    messages: Streaming<M>,
    convert: impl Fn(M) -> I + Send + 'static,
) -> ItemStream<T>
where
    I: IntoIterator<Item = Result<T>> + 'static,
{
    let pages = messages.map(move |message| match message {
        Ok(message) => convert(message).into_iter().collect::<Vec<_>>(),
        Err(status) => vec![Err(from_status(status))],
    });
    pages.flat_map(iter).boxed()
}
