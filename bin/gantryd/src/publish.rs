//! `gantryd publish`: sends one event to a running daemon. Source: features C05.

use std::io::Read as _;

use gantry_core::{Context, Error, Namespace, Result, ResultExt as _};

use crate::arguments::{Arguments, Publish};

/// An event may have at most this many bytes.
const MAX_EVENT_BYTES: u64 = 4 << 20;

/// Reads an encoded `Any` from standard input and publishes it.
///
/// # Errors
/// `InvalidArgument` for a payload that is none; those of the daemon.
pub(crate) fn run(arguments: &Arguments, publish: &Publish) -> Result<()> {
    let mut payload = Vec::new();
    std::io::stdin()
        .take(MAX_EVENT_BYTES + 1)
        .read_to_end(&mut payload)
        .context("read the event from standard input")?;
    if payload.len() as u64 > MAX_EVENT_BYTES {
        return Err(Error::resource_exhausted(format!("event: larger than {MAX_EVENT_BYTES} bytes")));
    }
    let payload = gantry_rpc::events::payload_from_bytes(&payload)?;
    let cx = Context::new(Namespace::parse(publish.namespace.as_str())?);
    let address = arguments.server_address();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?
        .block_on(async {
            use gantry_core::events::EventService as _;
            let channel = gantry_rpc::connect(std::path::Path::new(&address))?;
            gantry_rpc::events::RemoteEvents::new(channel).publish_any(&cx, &publish.topic, payload).await
        })
        .with_context(|| format!("publish to {address}"))
}
