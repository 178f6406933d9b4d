//! Stream processors: programs that turn a layer of one media type into one of another, for example decrypt it.
//!
//! ```text
//!  content ── stdin ▷ program ▷ stdout ── stdin ▷ program ▷ stdout ── decompress, extract
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_core::{Any, Context, Error, Result, ResultExt};
use gantry_sys::process::{Child, Spawn, pipe};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::stream::ContentStream;

/// How many programs one layer may go through.
const MAX_PROCESSORS: usize = 8;
/// How much of what a program says last is told when it fails.
const MAX_WORDS_BYTES: usize = 4096;
/// How long a program may take to end after its output has ended.
pub(crate) const LAST_MOMENTS: Duration = Duration::from_secs(10);
/// How long it is waited whether a program fails whose output was no layer.
pub(crate) const FAILING_MOMENTS: Duration = Duration::from_secs(1);
/// How often a wait for output looks at whether the caller is still there.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The number of the descriptor with the payload, and where a program is told of it. Source: features C20 and containerd's
/// stream processor protocol.
const PAYLOAD_FD: i32 = 3;
const PAYLOAD_ENV: &str = "STREAM_PROCESSOR_PIPE";
/// Tells a program the media type of its input. Source: the same.
const MEDIA_TYPE_ENV: &str = "STREAM_PROCESSOR_MEDIATYPE";

/// A program that processes layers, as the configuration describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamProcessor {
    /// Its name in the configuration, by which callers address payloads.
    pub id: String,
    /// The media types it takes; required.
    pub accepts: Vec<String>,
    /// The media type it gives; required.
    pub returns: String,
    /// The program; required. A name without a slash is looked up in `PATH`.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// `NAME=value` for its environment, besides the daemon's own.
    pub env: Vec<String>,
}

/// The programs that a layer goes through before it is a tar, in order, each with the media type it is given.
pub(crate) type Chain = Vec<(StreamProcessor, String)>;

/// Finds the programs that turn `media_type` into one that `is_known`, and that type.
///
/// # Errors
/// `Unimplemented` if there is no way.
pub(crate) fn chain(
    processors: &[StreamProcessor],
    media_type: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<(Chain, String)> {
    let (mut chain, mut current) = (Chain::new(), media_type.to_owned());
    while !is_known(&current) {
        let taker = processors.iter().find(|processor| processor.accepts.contains(&current));
        let Some(taker) = taker.filter(|_| chain.len() < MAX_PROCESSORS) else {
            return Err(Error::unimplemented(format!("no processor for media-type {current:?}")));
        };
        let given = std::mem::replace(&mut current, taker.returns.clone());
        chain.push((taker.clone(), given));
    }
    Ok((chain, current))
}

/// The running programs of one layer; reading gives what the last one writes. Those that still run are killed when it
/// is dropped.
pub(crate) struct Processors<'a> {
    cx: &'a Context,
    output: File,
    running: Vec<Running>,
    pump: Option<JoinHandle<()>>,
}

struct Running {
    id: String,
    child: Child,
    words: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
}

impl<'a> Processors<'a> {
    /// Starts the programs of `chain`, the first one on `content`.
    pub(crate) fn start(
        cx: &'a Context,
        chain: &Chain,
        content: ContentStream,
        payloads: &std::collections::BTreeMap<String, Any>,
    ) -> Result<Self> {
        let (mut input, pump) = match content {
            ContentStream::File(file) => (OwnedFd::from(file), None),
            content => {
                let (read, write) = pipe().context("make a pipe")?;
                (read, Some(pumped(content, File::from(write))?))
            }
        };
        let mut running = Vec::new();
        for (processor, media_type) in chain {
            let (read, write) = pipe().context("make a pipe")?;
            let payload = payloads.get(&processor.id);
            let started = processor.start(media_type, input, write, payload);
            match started {
                Ok(program) => running.push(program),
                Err(error) => {
                    end(&mut running);
                    return Err(error.context(format!("start stream processor {:?}", processor.id)));
                }
            }
            input = read;
        }
        Ok(Processors { cx, output: File::from(input), running, pump })
    }

    /// Gives each program `patience` to end.
    ///
    /// # Errors
    /// The first failure of one, with what it said; `DeadlineExceeded` if one does not end.
    pub(crate) fn finish(mut self, patience: Duration) -> Result<()> {
        for program in &mut self.running {
            let exit = program.child.wait_timeout(patience)?;
            let Some(exit) = exit else {
                return Err(Error::deadline_exceeded(format!(
                    "stream processor {:?} does not end",
                    program.id
                )));
            };
            if !exit.status.success() {
                if let Some(listener) = program.listener.take() {
                    drop(listener.join());
                }
                let words = program.words.lock().unwrap_or_else(PoisonError::into_inner);
                let words = String::from_utf8_lossy(&words).trim().to_owned();
                let status = exit.status.status();
                return Err(Error::unknown(format!(
                    "stream processor {:?} ended with status {status}: {words}",
                    program.id
                )));
            }
        }
        Ok(())
    }
}

impl Read for Processors<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.cx.check().map_err(io::Error::other)?;
            let mut polled = [PollFd::new(&self.output, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&LOOK_UP)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.output.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for Processors<'_> {
    fn drop(&mut self) {
        end(&mut self.running);
        // Without its reader the pump's next write fails.
        drop(self.pump.take());
    }
}

/// Kills what still runs, and takes its exit.
fn end(running: &mut Vec<Running>) {
    for program in running.drain(..) {
        if matches!(program.child.try_wait(), Ok(Some(_))) {
            continue;
        }
        // SIGKILL. Source: signal(7).
        let ended = program.child.kill(9).and_then(|()| program.child.wait_timeout(LAST_MOMENTS));
        if let Err(error) = ended.map(drop)
            && error.kind() != gantry_core::ErrorKind::NotFound
        {
            tracing::warn!(processor = program.id, %error, "end a stream processor");
        }
    }
}

impl StreamProcessor {
    fn start(
        &self,
        media_type: &str,
        input: OwnedFd,
        output: OwnedFd,
        payload: Option<&Any>,
    ) -> Result<Running> {
        let (read, write) = pipe().context("make a pipe")?;
        let mut spawn = Spawn::new(&self.path).args(&self.args).inherit_env();
        for pair in &self.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            spawn = spawn.env(name, value);
        }
        spawn = spawn.env(MEDIA_TYPE_ENV, media_type).stdin(input).stdout(output).stderr(write);
        if let Some(payload) = payload {
            let path = format!("/proc/self/fd/{PAYLOAD_FD}");
            spawn = spawn.descriptor(in_memory(&encoded(payload))?, PAYLOAD_FD).env(PAYLOAD_ENV, path);
        }
        let child = spawn.spawn()?;
        let words = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&words);
        let listener = std::thread::Builder::new()
            .name("processor-words".into())
            .spawn(move || listen(File::from(read), &heard))
            .context("start a thread")?;
        Ok(Running { id: self.id.clone(), child, words, listener: Some(listener) })
    }
}

/// Keeps the last of what a program says.
fn listen(mut from: File, words: &Mutex<Vec<u8>>) {
    let mut buffer = [0u8; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend_from_slice(&buffer[..count]);
        let surplus = words.len().saturating_sub(MAX_WORDS_BYTES);
        words.drain(..surplus);
    }
}

/// Copies content that has no file of its own into a pipe.
fn pumped(mut content: ContentStream, mut to: File) -> Result<JoinHandle<()>> {
    let pump = move || {
        // A program that wants no more, or ended, closes the pipe; a store that fails cuts it, which the program
        // sees as the end of a broken layer.
        if let Err(error) = io::copy(&mut content, &mut to).and_then(|_| to.flush()) {
            tracing::debug!(%error, "hand a layer to a stream processor");
        }
    };
    std::thread::Builder::new().name("processor-input".into()).spawn(pump).context("start a thread")
}

/// A file without a name that holds `bytes`, read from its start.
fn in_memory(bytes: &[u8]) -> Result<OwnedFd> {
    let made = rustix::fs::memfd_create("payload", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(made.map_err(|errno| Error::io(errno.into())).context("make a memory file")?);
    let written = file.write_all(bytes).and_then(|()| io::Seek::rewind(&mut file));
    written.context("write the payload")?;
    Ok(file.into())
}

/// A `google.protobuf.Any`. Source: its published definition: `type_url` is field 1, `value` field 2, both length
/// delimited.
fn encoded(any: &Any) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, field) in [(0x0a, any.type_url.as_bytes()), (0x12, &any.value[..])] {
        if field.is_empty() {
            continue;
        }
        bytes.push(tag);
        let mut length = field.len();
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_known_type_is_found_and_has_an_end() {
        let step = |accepts: &str, returns: &str| StreamProcessor {
            id: accepts.into(),
            accepts: vec![accepts.into()],
            returns: returns.into(),
            ..StreamProcessor::default()
        };
        let processors = [step("a", "b"), step("b", "tar"), step("x", "x")];
        let ids = |from| {
            chain(&processors, from, |kind| kind == "tar")
                .map(|(chain, _)| chain.into_iter().map(|(step, _)| step.id).collect::<Vec<_>>())
        };
        assert_eq!(ids("tar").unwrap(), Vec::<String>::new());
        assert_eq!(ids("a").unwrap(), ["a", "b"]);
        for none in ["x", "other"] {
            assert_eq!(ids(none).unwrap_err().kind(), gantry_core::ErrorKind::Unimplemented);
        }
    }

    #[test]
    fn payloads_are_written_as_any() {
        assert_eq!(encoded(&Any::new("ab", vec![1u8, 2])), [0x0a, 2, b'a', b'b', 0x12, 2, 1, 2]);
        assert_eq!(encoded(&Any::new("", vec![7u8; 200]))[..4], [0x12, 0xc8, 0x01, 7]);
    }
}
