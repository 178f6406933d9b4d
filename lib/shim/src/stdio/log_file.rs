//! A file that output is appended to, rotated if it is limited.
//!
//! ```text
//! path ──full──► path.1 ──full──► path.2 ──► ... ──► removed
//! ```
//!
//! The process never stops for its log: what cannot be written (a full disk, a limit of the file system) is lost, and
//! writing is tried again with what comes next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use gantry_core::log_limits::{LogLimits, rotated};
use rustix::fs::OFlags;

/// A regular file that is appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// How much is in it, as far as we know: another may write to it too.
    size: u64,
    at_line_start: bool,
    rotation: Option<(PathBuf, LogLimits)>,
    /// How many bytes were lost since something was written.
    lost: u64,
}

impl LogFile {
    /// Appends to `file`, without limit.
    pub(super) fn new(file: File) -> LogFile {
        LogFile { file, size: 0, at_line_start: true, rotation: None, lost: 0 }
    }

    /// Appends to `file`, which is at `path`, within `limits`.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn limited(file: File, path: &std::path::Path, limits: LogLimits) -> io::Result<LogFile> {
        let size = file.metadata()?.len();
        // A name that is a link stays one; what is rotated is the file.
        let path = fs::canonicalize(path)?;
        Ok(LogFile { size, rotation: Some((path, limits)), ..LogFile::new(file) })
    }

    /// Writes `bytes`, as far as they can be written.
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(written) => {
                    if self.lost > 0 {
                        tracing::warn!(bytes = self.lost, "output was lost; the log is written again");
                        self.lost = 0;
                    }
                    self.size = self.size.saturating_add(written as u64);
                    self.at_line_start = bytes[..written].last() == Some(&b'\n');
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if self.lost == 0 {
                        tracing::warn!(%error, "a log cannot be written; output is lost");
                    }
                    self.lost = self.lost.saturating_add(bytes.len() as u64);
                    return;
                }
            }
        }
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut fits = self.fits(bytes);
        // Twice if another has put a full file in the place of ours.
        for _ in 0..2 {
            if fits == 0 {
                self.rotate()?;
                fits = self.fits(bytes);
            }
        }
        match self.file.write(&bytes[..fits])? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    /// How many of `bytes` belong into the present file: whole lines, unless the rest of one that is in it does not fit.
    fn fits(&self, bytes: &[u8]) -> usize {
        let Some((_, limits)) = &self.rotation else { return bytes.len() };
        let room = usize::try_from(limits.max_size_bytes.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return bytes.len();
        }
        match bytes[..room].iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.at_line_start && self.size > 0 => 0,
            None => room,
        }
    }

    /// Puts an empty file in the place of the full one, and lets the oldest go.
    fn rotate(&mut self) -> io::Result<()> {
        let Some((path, limits)) = &self.rotation else { return Ok(()) };
        let ours = self.file.metadata()?;
        let there = fs::symlink_metadata(path);
        let is_ours = there.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()));
        let fresh = if !is_ours {
            // Another has moved or removed it, like logrotate does.
            append().create(true).mode(ours.mode()).open(path)?
        } else if limits.max_files == 1 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        } else {
            let aside = {
                let mut name = path.clone().into_os_string();
                name.push(".new");
                PathBuf::from(name)
            };
            // What a shim that was killed here has left.
            let _ = fs::remove_file(&aside);
            let fresh = append().create_new(true).mode(0o600).open(&aside)?;
            let placed = (|| {
                std::os::unix::fs::fchown(&fresh, Some(ours.uid()), Some(ours.gid()))?;
                fresh.set_permissions(fs::Permissions::from_mode(ours.mode() & 0o777))?;
                for age in (0..limits.max_files - 1).rev() {
                    match fs::rename(rotated(path, age), rotated(path, age + 1)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                fs::rename(&aside, path)
            })();
            if let Err(error) = placed {
                let _ = fs::remove_file(&aside);
                return Err(error);
            }
            fresh
        };
        self.size = fresh.metadata()?.len();
        self.at_line_start = true;
        self.file = fresh;
        Ok(())
    }
}

fn append() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    options.append(true).custom_flags(flags.bits().cast_signed());
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(path: &Path, max_size_bytes: u64, max_files: u32) -> LogFile {
        let file = append().create(true).mode(0o640).open(path).unwrap();
        LogFile::limited(file, path, LogLimits { max_size_bytes, max_files }).unwrap()
    }

    fn text(path: &Path, age: u32) -> String {
        fs::read_to_string(rotated(path, age)).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn lines_stay_whole_and_the_oldest_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = open(&path, 10, 3);
        log.write(b"one\ntwo\nthree\n");
        assert_eq!((text(&path, 0).as_str(), text(&path, 1).as_str()), ("three\n", "one\ntwo\n"));
        log.write(b"f");
        log.write(b"r\n");
        log.write(b"five\nsix\nseven\n");
        let files = [0, 1, 2].map(|age| text(&path, age));
        assert_eq!(files, ["seven\n", "five\nsix\n", "three\nfr\n"].map(str::to_owned));
        assert_eq!(names(dir.path()), ["log", "log.1", "log.2"]);
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, fs::metadata(rotated(&path, 2)).unwrap().mode() & 0o777);
    }

    #[test]
    fn a_line_longer_than_a_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = open(&path, 10, 2);
        log.write(b"a\n");
        log.write(&[b'x'; 25]);
        log.write(b"\n");
        assert_eq!((text(&path, 0), text(&path, 1)), ("xxxxx\n".into(), "x".repeat(10)));
    }

    #[test]
    fn a_single_file_is_emptied_and_one_from_before_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "12345678\n").unwrap();
        let mut log = open(&path, 10, 1);
        log.write(b"new\n");
        assert_eq!(text(&path, 0), "new\n");
        assert_eq!(names(dir.path()), ["log"]);
    }

    #[test]
    fn a_link_stays_and_what_another_put_there_is_not_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("log"), dir.path().join("link"));
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink("log", &link).unwrap();
        let mut log = open_link(&link);
        log.write(b"12345678\n");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        log.write(b"next\n");
        assert_eq!(names(dir.path()), ["link", "log", "moved"]);
        assert_eq!(text(&link, 0), "next\n");
        log.write(b"12345678\n");
        assert_eq!((text(&path, 0).as_str(), text(&path, 1).as_str()), ("12345678\n", "next\n"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    fn open_link(link: &Path) -> LogFile {
        let file = OpenOptions::new().append(true).open(link).unwrap();
        LogFile::limited(file, link, LogLimits { max_size_bytes: 10, max_files: 2 }).unwrap()
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = open(&path, 10, 2);
        let file = std::mem::replace(&mut log.file, File::create("/dev/full").unwrap());
        log.write(b"lost\n");
        assert_eq!(log.lost, 5);
        log.file = file;
        log.write(b"kept\n");
        assert_eq!((log.lost, text(&path, 0).as_str()), (0, "kept\n"));
        // No file can be made aside.
        fs::create_dir(dir.path().join("log.new")).unwrap();
        log.write(b"too much\n");
        assert_eq!((log.lost, text(&path, 0).as_str()), (9, "kept\n"));
    }
}
