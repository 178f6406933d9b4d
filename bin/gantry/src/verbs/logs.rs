//! `gantry logs`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use gantry_client::Client;
use gantry_core::log_limits::{LogLimits, rotated};
use gantry_core::{Error, ErrorKind, ResultExt as _};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, Stdout};

use crate::failure::{Failure, Result};
use crate::log_file;
use crate::verbs::container;

/// How often a file is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much is copied at once.
const COPY_BYTES: usize = 64 << 10;

/// What `logs` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Go on until the container's task has ended
    #[arg(long, short = 'f')]
    follow: bool,
    /// The container
    id: String,
}

pub(crate) async fn run(client: &Client, flags: Flags) -> Result<i32> {
    let container = container(client, &flags.id).await?;
    let labels = container.info().await?.labels;
    let Some(path) = log_file::noted(&labels) else {
        let error = Error::not_found("a log file").context(format!("container {:?}", container.id()));
        return Err(Failure::from(error).hint("only what gantry run -d starts writes one"));
    };
    // Without limits, what lies beside the file is not of this log.
    let files = LogLimits::from_labels(&labels)?.map_or(1, |limits| limits.max_files);
    let mut log = Log::open(path, files).await?;
    log.copy().await?;
    if !flags.follow {
        return Ok(0);
    }
    let ended = async {
        match container.task().await {
            Ok(task) => task.wait().await.map(|_| ()),
            Err(error) => Err(error),
        }
    };
    let mut ended = pin!(ended);
    loop {
        tokio::select! {
            ended = &mut ended => {
                // What it said last may still be on its way through the shim.
                tokio::time::sleep(LOOK_EVERY).await;
                log.copy().await?;
                return match ended {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                    _ => Ok(0),
                };
            }
            () = tokio::time::sleep(LOOK_EVERY) => log.copy().await?,
        }
    }
}

/// A log and what was rotated of it, read as one.
struct Log {
    path: PathBuf,
    /// How many files there may be.
    files: u32,
    file: File,
    stdout: Stdout,
}

impl Log {
    /// Opens the oldest file that there is.
    async fn open(path: PathBuf, files: u32) -> Result<Self> {
        let oldest = (1..files).take_while(|age| rotated(&path, *age).exists()).last().unwrap_or(0);
        for age in (1..=oldest).rev() {
            // It may have been the first to go just now.
            if let Ok(file) = File::open(rotated(&path, age)).await {
                return Ok(Log { path, files, file, stdout: tokio::io::stdout() });
            }
        }
        let file = open(&path).await?;
        Ok(Log { path, files, file, stdout: tokio::io::stdout() })
    }

    /// Copies what is there and was not copied yet.
    async fn copy(&mut self) -> Result<()> {
        self.copy_file().await?;
        while let Some(next) = self.next().await? {
            // It may have grown until it was rotated.
            self.copy_file().await?;
            self.file = next;
            self.copy_file().await?;
        }
        Ok(())
    }

    async fn copy_file(&mut self) -> Result<()> {
        let step = || format!("read log file {}", self.path.display());
        let mut buffer = vec![0; COPY_BYTES];
        if self.file.metadata().await.with_context(step)?.len()
            < self.file.stream_position().await.with_context(step)?
        {
            // The only file there may be was full, and is written anew.
            self.file.rewind().await.with_context(step)?;
        }
        loop {
            let length = self.file.read(&mut buffer).await.with_context(step)?;
            if length == 0 {
                return Ok(self.stdout.flush().await.context("write to standard output")?);
            }
            self.stdout.write_all(&buffer[..length]).await.context("write to standard output")?;
        }
    }

    /// The file that followed the present one, if that was rotated.
    async fn next(&mut self) -> Result<Option<File>> {
        let step = || format!("look at log file {}", self.path.display());
        let ours = self.file.metadata().await.with_context(step)?;
        let mut younger = None;
        for age in 0..self.files {
            let path = rotated(&self.path, age);
            match std::fs::metadata(&path) {
                Ok(found) if (found.dev(), found.ino()) == (ours.dev(), ours.ino()) => break,
                Ok(_) => younger = Some(path),
                // Between two names, for a moment.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && age == 0 => {}
                // Ours is gone: the oldest that is left follows.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) => return Err(Error::io(error).context(step()).into()),
            }
        }
        match younger {
            Some(path) => Ok(Some(open(&path).await?)),
            None => Ok(None),
        }
    }
}

async fn open(path: &Path) -> Result<File> {
    Ok(File::open(path).await.with_context(|| format!("log file {}", path.display()))?)
}
