//! Clients that cost next to nothing: one thread serves all connections; each has one call under way, sends a prepared request and
//! reads frames until its stream ends.
//!
//! With an ordinary client most of the machine's time in a small call is the client's own, which hides what the daemon takes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;

/// Source: RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types and flags. Source: RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const HEAD_BYTES: usize = 9;
/// The largest window less the one that there is anyway: no answer of a run waits for another update.
const WINDOW: u32 = 0x7fff_ffff - 0xffff;
/// Daemons that are silent for longer have failed.
const PATIENCE_SECONDS: i64 = 10;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header that leaves no trace in the tables of the other end. Source: RFC 7541, section 6.2.2.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let short = |text: &str| u8::try_from(text.len()).unwrap_or(0);
    [&[0, short(name)], name.as_bytes(), &[short(value)], value.as_bytes()].concat()
}

struct Client {
    socket: UnixStream,
    request: Vec<u8>,
    /// Of the call under way.
    stream: u32,
    begun: Instant,
    answered: bool,
    /// What was received and is no whole frame yet.
    received: Vec<u8>,
}

impl Client {
    fn connect(address: &Path, method: &str) -> Result<Client> {
        let failed = |error: std::io::Error| format!("{}: {error}", address.display());
        let mut socket = UnixStream::connect(address).map_err(failed)?;
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        hello.extend(frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes()));
        socket.write_all(&hello).map_err(failed)?;
        let headers = [
            literal(":method", "POST"),
            literal(":scheme", "http"),
            literal(":path", method),
            literal(":authority", "localhost"),
            literal("te", "trailers"),
            literal("content-type", "application/grpc"),
        ];
        let mut request = frame(HEADERS, END_HEADERS, 0, &headers.concat());
        request.extend(frame(DATA, END_STREAM, 0, &[0; 5]));
        let begun = Instant::now();
        // Client streams are odd; the first call begins number 1.
        Ok(Client { socket, request, stream: u32::MAX, begun, answered: false, received: Vec::new() })
    }

    /// Sends the next call, with an empty message.
    fn begin(&mut self) -> Result<()> {
        self.stream = self.stream.wrapping_add(2);
        let number = self.stream.to_be_bytes();
        // Both frames name the stream, the second one is the last 14 bytes.
        let data = self.request.len() - HEAD_BYTES - 5;
        self.request[5..HEAD_BYTES].copy_from_slice(&number);
        self.request[data + 5..data + HEAD_BYTES].copy_from_slice(&number);
        (self.answered, self.begun) = (false, Instant::now());
        self.socket.write_all(&self.request).map_err(|error| format!("send: {error}"))
    }

    /// Takes what has come; true if the call's answer is whole, which must have a message that is not empty.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let count = self.socket.read(&mut buffer).map_err(|error| format!("receive: {error}"))?;
        if count == 0 {
            return Err("the daemon closed the connection".to_owned());
        }
        self.received.extend_from_slice(&buffer[..count]);
        let (mut at, mut ended) = (0, false);
        while let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = self.received[at..].first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(payload) = self.received[at..].get(HEAD_BYTES..HEAD_BYTES + length) else { break };
            let ours = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) == self.stream;
            let reply = match kind {
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(PING, ACK, 0, payload),
                GOAWAY | RST_STREAM => return Err(format!("the daemon ended the call, frame type {kind}")),
                _ => Vec::new(),
            };
            self.answered |= kind == DATA && ours && length > 5;
            ended |= kind == HEADERS && ours && flags & END_STREAM != 0;
            self.socket.write_all(&reply).map_err(|error| format!("send: {error}"))?;
            at += HEAD_BYTES + length;
        }
        self.received.drain(..at);
        if ended && !self.answered {
            return Err("the daemon answered without a message".to_owned());
        }
        Ok(ended)
    }
}

/// Calls `method`, with an empty message, `each` times on each of `clients` connections at once; gives what each call took.
pub(crate) fn spread(
    address: &Path,
    method: &str,
    clients: usize,
    each: usize,
) -> Result<(Duration, Vec<Duration>)> {
    // Connected before the clock runs.
    let mut all: Vec<Client> =
        (0..clients).map(|_| Client::connect(address, method)).collect::<Result<_>>()?;
    let begun = Instant::now();
    for client in &mut all {
        client.begin()?;
    }
    let mut took = Vec::with_capacity(clients * each);
    let mut left = vec![each; clients];
    let patience = Timespec { tv_sec: PATIENCE_SECONDS, tv_nsec: 0 };
    while took.len() < clients * each {
        let mut waiting: Vec<PollFd<'_>> =
            all.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)).collect();
        let ready = poll(&mut waiting, Some(&patience)).map_err(|error| format!("poll: {error}"))?;
        if ready == 0 {
            return Err("the daemon does not answer".to_owned());
        }
        let ready: Vec<bool> = waiting.iter().map(|one| !one.revents().is_empty()).collect();
        for (at, client) in all.iter_mut().enumerate().filter(|(at, _)| ready[*at]) {
            if !client.receive()? {
                continue;
            }
            took.push(client.begun.elapsed());
            left[at] -= 1;
            if left[at] > 0 {
                client.begin()?;
            }
        }
    }
    Ok((begun.elapsed(), took))
}
