//! What a client names as input or output: fifos and files.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gantry_core::log_limits::LogLimits;
use gantry_core::{Error, Result, ResultExt};
use gantry_sys::descriptor::async_fd;
use gantry_sys::fifo;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::log_file::LogFile;

/// Where output goes.
#[derive(Debug)]
pub(super) enum Target {
    Nowhere,
    /// A fifo or something like it, open for both, so that no reader's coming and going is felt.
    Fifo(OwnedFd),
    File(LogFile),
    /// A logger's pipe.
    Pipe(OwnedFd),
    /// For standard error: the pipe of standard output.
    WithOutput,
}

impl Target {
    /// Opens the fifo or file at a path; an empty one means nowhere.
    pub(super) fn open(name: &str) -> Result<Target> {
        let path = name.strip_prefix("fifo://").unwrap_or(name);
        if path.is_empty() {
            return Ok(Target::Nowhere);
        }
        let opened = rustix::fs::openat(
            CWD,
            path,
            OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        );
        let fd = opened
            .map_err(|errno| Error::io(errno.into()))
            .with_context(|| format!("open output {path:?}"))?;
        match file_type(&fd, path)? {
            FileType::RegularFile => Ok(Target::File(LogFile::new(File::from(fd)))),
            FileType::Fifo | FileType::CharacterDevice => Ok(Target::Fifo(fd)),
            _ => Err(Error::invalid_argument(format!("output {path:?} is neither fifo nor file"))),
        }
    }
}

/// Opens, and makes if need be, the file of a `file://` URL, with the limits that are in its query.
pub(super) fn file(url: &str) -> Result<Target> {
    let path = url_path(url)?;
    // A query that is none of ours may be written as it likes: the original does not look at it.
    let query = url_query(url).unwrap_or_default();
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let limits = LogLimits::read(value)?;
    if let Some(parent) = path.parent() {
        // Source: the original makes missing directories with mode 0755.
        std::fs::create_dir_all(parent).with_context(|| format!("make {parent:?}"))?;
    }
    let step = || format!("open output {path:?}");
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags((OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)
        .with_context(step)?;
    if !file.metadata().with_context(step)?.is_file() {
        return Ok(Target::Fifo(file.into()));
    }
    Ok(Target::File(match limits {
        Some(limits) => LogFile::limited(file, &path, limits).with_context(step)?,
        None => LogFile::new(file),
    }))
}

/// The absolute path of a URL without host, percent-decoded.
pub(super) fn url_path(url: &str) -> Result<PathBuf> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Error::invalid_argument(format!("{url:?} has no absolute path")));
    }
    Ok(PathBuf::from(decoded(path)?))
}

/// The pairs of a URL's query, decoded.
pub(super) fn url_query(url: &str) -> Result<Vec<(String, String)>> {
    let Some((_, query)) = url.split_once('?') else { return Ok(Vec::new()) };
    let query = query.split('#').next().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(&key.replace('+', " "))?, decoded(&value.replace('+', " "))?))
    });
    pairs.collect()
}

fn decoded(text: &str) -> Result<String> {
    let wrong = || Error::invalid_argument(format!("percent-encoding of {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return Err(wrong()) };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    if bytes.contains(&0) {
        return Err(wrong());
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn file_type(fd: &OwnedFd, path: &str) -> Result<FileType> {
    let found = rustix::fs::fstat(fd)
        .map_err(|errno| Error::io(errno.into()))
        .with_context(|| format!("look at {path:?}"))?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

/// Standard input's fifo: the end that is read, and one of our own that keeps it open.
#[derive(Debug)]
pub(super) struct StdinFifo {
    read: AsyncFd<OwnedFd>,
    keeper: OwnedFd,
}

impl StdinFifo {
    pub(super) fn open(name: &str) -> Result<StdinFifo> {
        let path = Path::new(name.strip_prefix("fifo://").unwrap_or(name));
        let read = fifo::open_now(path, fifo::End::Read)?;
        // The reading end is there, so this one opens at once.
        let keeper = fifo::open_now(path, fifo::End::Write)?;
        let read = async_fd(read, Interest::READABLE).with_context(|| format!("watch {path:?}"))?;
        Ok(StdinFifo { read, keeper })
    }

    pub(super) fn split(self) -> (AsyncFd<OwnedFd>, OwnedFd) {
        (self.read, self.keeper)
    }
}
