//! A process's input and output: fifos that are copied from and to, a file, or nothing.

use std::fs::DirBuilder;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_core::tasks::TaskIo;
use gantry_core::{Error, Result, ResultExt};
use gantry_sys::fifo::{self, End};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::job;
use crate::lease::unique_name;

/// Where a process's input comes from.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// Where a process's output goes.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Source: containerd's client, `defaults.DefaultFIFODir`.
const DEFAULT_FIFO_DIR: &str = "/run/containerd/fifo";
/// How much is copied at once.
const COPY_BYTES: usize = 32 << 10;
/// How long output may still come after a process's end: a child of it may hold its output open for ever.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What is to become of a process's input and output.
#[derive(Default)]
pub enum IoRequest {
    /// No input; output goes nowhere.
    #[default]
    Null,
    /// No input; output is appended to this file, which the shim writes, so it goes on without us.
    Log(PathBuf),
    /// Through fifos.
    Fifos(FifoIo),
}

/// Input and output through fifos, copied by this process.
#[derive(Default)]
pub struct FifoIo {
    /// Standard input; none if absent.
    pub stdin: Option<Input>,
    /// Standard output; none if absent.
    pub stdout: Option<Output>,
    /// Standard error; none if absent, and always so with a terminal.
    pub stderr: Option<Output>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// The directory that the fifos' own directory is made in, `/run/containerd/fifo` if absent. The shim must see it
    /// under the same name.
    pub dir: Option<PathBuf>,
}

impl FifoIo {
    /// This process's own standard streams; its input only if `stdin`.
    pub fn inherit(stdin: bool, terminal: bool) -> Self {
        FifoIo {
            stdin: stdin.then(|| Box::new(tokio::io::stdin()) as Input),
            stdout: Some(Box::new(tokio::io::stdout())),
            stderr: (!terminal).then(|| Box::new(tokio::io::stderr()) as Output),
            terminal,
            dir: None,
        }
    }
}

/// The input and output of one process. Dropping it stops the copying and removes the fifos.
pub struct ProcessIo {
    config: TaskIo,
    dir: Option<FifoDir>,
    /// Writing ends of the output fifos: until the shim has opened its own, a reader would see the end.
    held: Vec<OwnedFd>,
    input: Option<(PathBuf, Input)>,
    copying_in: Option<JoinHandle<()>>,
    copying_out: Vec<JoinHandle<()>>,
}

/// A directory of fifos, removed with them.
struct FifoDir(PathBuf);

impl Drop for FifoDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.0.display(), %error, "removing fifos failed");
        }
    }
}

impl ProcessIo {
    /// Makes what `request` asks for; `name` goes into the fifos' names. Copying of output begins at once.
    pub(crate) fn prepare(name: &str, request: IoRequest) -> Result<Self> {
        let mut io = ProcessIo {
            config: TaskIo::default(),
            dir: None,
            held: Vec::new(),
            input: None,
            copying_in: None,
            copying_out: Vec::new(),
        };
        match request {
            IoRequest::Null => {}
            IoRequest::Log(path) => {
                let text = path.to_str().filter(|_| path.is_absolute());
                let text = text.ok_or_else(|| {
                    Error::invalid_argument(format!(
                        "log file {path:?}: must be an absolute path of plain text"
                    ))
                })?;
                let url = format!("file://{text}");
                io.config = TaskIo { stdout: url.clone(), stderr: url, ..TaskIo::default() };
            }
            IoRequest::Fifos(fifos) => io.open(name, fifos)?,
        }
        Ok(io)
    }

    /// The names, as a task is created with.
    pub fn config(&self) -> &TaskIo {
        &self.config
    }

    fn open(&mut self, name: &str, fifos: FifoIo) -> Result<()> {
        let base = fifos.dir.unwrap_or_else(|| PathBuf::from(DEFAULT_FIFO_DIR));
        let dir = make_dir(&base)?;
        self.config.terminal = fifos.terminal;
        let make = |stream: &str| -> Result<(PathBuf, String)> {
            let path = dir.0.join(format!("{name}-{stream}"));
            fifo::make(&path, 0o700)?;
            let text = path.to_str().ok_or_else(|| Error::invalid_argument(format!("fifo {path:?}")))?;
            Ok((path.clone(), text.to_owned()))
        };
        if let Some(input) = fifos.stdin {
            let (path, text) = make("stdin")?;
            self.config.stdin = text;
            self.input = Some((path, input));
        }
        if let Some(output) = fifos.stdout {
            let (path, text) = make("stdout")?;
            self.config.stdout = text;
            self.copy_out(&path, output)?;
        }
        if let Some(output) = fifos.stderr.filter(|_| !fifos.terminal) {
            let (path, text) = make("stderr")?;
            self.config.stderr = text;
            self.copy_out(&path, output)?;
        }
        self.dir = Some(dir);
        Ok(())
    }

    fn copy_out(&mut self, path: &Path, mut output: Output) -> Result<()> {
        let reader = fifo::open_now(path, End::Read)?;
        self.held.push(fifo::open_now(path, End::Write)?);
        let mut reader = pipe::Receiver::from_owned_fd(reader).with_context(|| format!("read {path:?}"))?;
        self.copying_out.push(job::start(async move {
            let mut buffer = vec![0; COPY_BYTES];
            let mut broken = false;
            loop {
                match reader.read(&mut buffer).await {
                    Ok(0) => break,
                    // A process whose output nobody reads must not stop for it.
                    Ok(_) if broken => {}
                    Ok(length) => {
                        broken = output.write_all(&buffer[..length]).await.is_err()
                            || output.flush().await.is_err();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "reading a process's output");
                        break;
                    }
                }
            }
        }));
        Ok(())
    }

    /// The shim holds its ends now: copies input, and calls `close` when it ends.
    pub(crate) fn started(&mut self, close: impl Future<Output = ()> + Send + 'static) {
        self.held.clear();
        let Some((path, mut input)) = self.input.take() else { return };
        self.copying_in = Some(job::start(async move {
            let copy = async {
                let writer = fifo::open_writer(&path).await?;
                let mut writer = pipe::Sender::from_owned_fd(writer)?;
                let mut buffer = vec![0; COPY_BYTES];
                loop {
                    let length = input.read(&mut buffer).await?;
                    if length == 0 {
                        return Ok::<_, Error>(());
                    }
                    writer.write_all(&buffer[..length]).await?;
                }
            };
            if let Err(error) = copy.await {
                tracing::debug!(%error, "copying standard input");
            }
            close.await;
        }));
    }

    /// Waits for the rest of the output, for a while.
    pub(crate) async fn drain(mut self) {
        self.held.clear();
        let outputs = std::mem::take(&mut self.copying_out);
        let deadline = tokio::time::Instant::now() + DRAIN_WITHIN;
        for mut output in outputs {
            if tokio::time::timeout_at(deadline, &mut output).await.is_err() {
                tracing::debug!("output is still open after the process's end");
                output.abort();
            }
        }
    }
}

impl Drop for ProcessIo {
    fn drop(&mut self) {
        for job in self.copying_in.iter().chain(&self.copying_out) {
            job.abort();
        }
    }
}

fn make_dir(base: &Path) -> Result<FifoDir> {
    let step = || format!("make a directory in {base:?}");
    DirBuilder::new().recursive(true).mode(0o700).create(base).with_context(step)?;
    for _ in 0..16 {
        let dir = base.join(unique_name());
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(FifoDir(dir)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(error).context(step())),
        }
    }
    Err(Error::already_exists("every name that was tried").context(step()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_written_before_the_end_is_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (sink, mut source) = tokio::io::duplex(1 << 20);
        let fifos =
            FifoIo { stdout: Some(Box::new(sink)), dir: Some(dir.path().to_owned()), ..FifoIo::default() };
        let mut io = ProcessIo::prepare("x", IoRequest::Fifos(fifos)).unwrap();
        let shim = fifo::open_now(Path::new(&io.config().stdout), End::Write).unwrap();
        io.started(async {});
        let text = vec![b'a'; 60_000];
        pipe::Sender::from_owned_fd(shim).unwrap().write_all(&text).await.unwrap();
        io.drain().await;
        let mut seen = Vec::new();
        source.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, text);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the fifos are gone");
    }

    #[tokio::test]
    async fn the_end_of_input_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let fifos = FifoIo {
            stdin: Some(Box::new(&b"hello"[..])),
            dir: Some(dir.path().to_owned()),
            ..FifoIo::default()
        };
        let mut io = ProcessIo::prepare("x", IoRequest::Fifos(fifos)).unwrap();
        let shim = fifo::open_now(Path::new(&io.config().stdin), End::Read).unwrap();
        let (closed, told) = tokio::sync::oneshot::channel();
        io.started(async move { closed.send(()).unwrap() });
        told.await.unwrap();
        let mut seen = String::new();
        pipe::Receiver::from_owned_fd(shim).unwrap().read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "hello");
    }

    #[tokio::test]
    async fn a_relative_log_file_is_refused() {
        assert!(ProcessIo::prepare("x", IoRequest::Log("log".into())).is_err());
    }
}
