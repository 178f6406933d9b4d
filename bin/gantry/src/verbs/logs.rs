//! `gantry logs`.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use gantry_client::Client;
use gantry_core::{Error, ErrorKind, ResultExt as _};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Stdout};

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
    let Some(path) = log_file::noted(&container.info().await?.labels) else {
        let error = Error::not_found("a log file").context(format!("container {:?}", container.id()));
        return Err(Failure::from(error).hint("only what gantry run -d starts writes one"));
    };
    let mut log = Log::open(&path).await?;
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

struct Log {
    file: File,
    stdout: Stdout,
    step: String,
}

impl Log {
    async fn open(path: &Path) -> Result<Self> {
        let step = format!("log file {}", path.display());
        let file = File::open(path).await.context(step.clone())?;
        Ok(Log { file, stdout: tokio::io::stdout(), step })
    }

    /// Copies what is there and was not copied yet.
    async fn copy(&mut self) -> Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let length = self.file.read(&mut buffer).await.with_context(|| self.step.clone())?;
            if length == 0 {
                return Ok(self.stdout.flush().await.context("write to standard output")?);
            }
            self.stdout.write_all(&buffer[..length]).await.context("write to standard output")?;
        }
    }
}
