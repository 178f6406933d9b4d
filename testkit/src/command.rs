//! Running programs with a deadline, in the background, or on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::{eventually, limit};

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 plus the signal's number when a signal ended it.
    pub code: i32,
    /// Everything it wrote to its standard output, bytes that are no UTF-8 replaced.
    pub stdout: String,
    /// Everything it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output, after making sure that the program succeeded.
    pub fn expect_success(self, what: &str) -> String {
        assert!(self.success(), "{what} failed with {}:\n{}{}", self.code, self.stdout, self.stderr);
        self.stdout
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs `command` to its end, with no input; panics when it takes longer than [`limit`].
///
/// Output goes through files, not pipes: a stray grandchild that keeps a pipe open cannot hang a test.
pub fn run(command: &mut Command) -> Output {
    run_for(command, limit())
}

/// [`run`] with a deadline of the caller's.
pub(crate) fn run_for(command: &mut Command, time: Duration) -> Output {
    let mut child = Background::spawn(command);
    child.wait_for(time)
}

/// A program that runs beside the test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Background {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
    ended: Option<i32>,
}

impl Background {
    /// Starts `command` with no input.
    pub fn spawn(command: &mut Command) -> Background {
        Self::spawn_with(command, Stdio::null())
    }

    /// Starts `command` with `input`.
    pub fn spawn_with(command: &mut Command, input: Stdio) -> Background {
        let stdout = tempfile::tempfile().expect("a temporary file");
        let stderr = tempfile::tempfile().expect("a temporary file");
        let line = format!("{command:?}");
        let child = command
            .stdin(input)
            .stdout(stdout.try_clone().expect("a descriptor"))
            .stderr(stderr.try_clone().expect("a descriptor"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        Background { line, child, stdout, stderr, ended: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end that writes to its standard input, when it was started with a pipe.
    pub fn stdin(&mut self) -> &mut std::process::ChildStdin {
        self.child.stdin.as_mut().expect("started with a pipe as input")
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// What it wrote to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it wrote to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until its standard output contains `wanted`.
    pub fn wait_for_output(&mut self, wanted: &str) {
        let deadline = Instant::now() + limit();
        loop {
            let stdout = self.stdout();
            if stdout.contains(wanted) {
                return;
            }
            let ended = self.try_wait();
            let seen = format!("{stdout}{}", self.stderr());
            assert!(
                ended.is_none() || self.stdout().contains(wanted),
                "{} ended without printing {wanted:?}:\n{seen}",
                self.line
            );
            assert!(Instant::now() < deadline, "{} never printed {wanted:?}:\n{seen}", self.line);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its exit code, if it has ended.
    pub fn try_wait(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for").map(code_of);
        }
        self.ended
    }

    /// Waits for its end; panics after [`limit`].
    pub fn wait(&mut self) -> Output {
        self.wait_for(limit())
    }

    fn wait_for(&mut self, time: Duration) -> Output {
        let deadline = Instant::now() + time;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(code) = self.try_wait() {
                return Output { code, stdout: self.stdout(), stderr: self.stderr() };
            }
            if Instant::now() >= deadline {
                self.kill();
                panic!("{} did not end within {time:?}:\n{}{}", self.line, self.stdout(), self.stderr());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Sends `signal` to it alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_wait().is_none() {
            let pid =
                Pid::from_raw(i32::try_from(self.child.id()).expect("pids fit")).expect("pids are positive");
            // It may have ended in between, which is what a signal is for.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it at once and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok().map(code_of);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(file: &File) -> String {
    let mut bytes = Vec::new();
    // The child shares this description and so its offset: read by position, never by seeking.
    use std::os::unix::fs::FileExt;
    let mut chunk = [0u8; 65536];
    loop {
        match file.read_at(&mut chunk, bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) => panic!("read a program's output: {error}"),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program on a terminal of its own.
#[derive(Debug)]
pub struct Pty {
    child: Background,
    master: File,
    screen: File,
}

impl Pty {
    /// Starts `command` with a terminal of `columns` by `rows` as input, output and error.
    pub fn spawn(command: &mut Command, columns: u16, rows: u16) -> Pty {
        let (master, slave) = open_pty(columns, rows);
        let line = format!("{command:?}");
        let child = command
            .stdin(slave.try_clone().expect("a descriptor"))
            .stdout(slave.try_clone().expect("a descriptor"))
            .stderr(slave)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        // The command keeps copies of the slave's descriptors; the master reports the end of input
        // only when they are gone.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let screen = tempfile::tempfile().expect("a temporary file");
        let mut reader = master.try_clone().expect("a descriptor");
        let mut writer = screen.try_clone().expect("a descriptor");
        thread::spawn(move || {
            let mut chunk = [0u8; 4096];
            // A master whose slave is closed reads as an I/O error, which is its end of file.
            while let Ok(count) = reader.read(&mut chunk) {
                if count == 0 || writer.write_all(&chunk[..count]).is_err() {
                    break;
                }
            }
        });
        let empty = tempfile::tempfile().expect("a temporary file");
        let nothing = empty.try_clone().expect("a descriptor");
        Pty { child: Background { line, child, stdout: empty, stderr: nothing, ended: None }, master, screen }
    }

    /// Types `text`.
    pub fn type_text(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes input");
    }

    /// Everything shown so far, with carriage returns removed.
    #[must_use]
    pub fn screen(&self) -> String {
        text(&self.screen).replace('\r', "")
    }

    /// Waits until `wanted` was shown.
    pub fn wait_for(&mut self, wanted: &str) {
        let line = self.child.line.clone();
        eventually(&format!("{wanted:?} on the terminal of {line}"), || {
            let shown = self.screen().contains(wanted);
            if !shown && self.child.try_wait().is_some() {
                // Give what is still in the terminal's buffer one more chance.
                thread::sleep(Duration::from_millis(100));
                let screen = self.screen();
                assert!(screen.contains(wanted), "{line} ended without showing {wanted:?}:\n{screen}");
                return Some(());
            }
            shown.then_some(())
        });
    }

    /// Types `text` again and again until `wanted` was shown: for what becomes true a moment later.
    pub fn type_until(&mut self, text: &str, wanted: &str) {
        let line = self.child.line.clone();
        let mut rounds = 0;
        eventually(&format!("{wanted:?} in answer to {text:?} on the terminal of {line}"), || {
            assert!(
                self.child.try_wait().is_none(),
                "{line} ended without showing {wanted:?}:\n{}",
                self.screen()
            );
            if rounds % 10 == 0 {
                self.type_text(text);
            }
            rounds += 1;
            self.screen().contains(wanted).then_some(())
        });
    }

    /// Sets the terminal's size, as a window manager would.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        set_size(&self.master, columns, rows);
        self.child.signal(Signal::WINCH);
    }

    /// Waits for the program's end; its exit code.
    pub fn wait(&mut self) -> i32 {
        self.child.wait().code
    }
}

fn set_size(terminal: impl rustix::fd::AsFd, columns: u16, rows: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).expect("a terminal has a size");
}

fn open_pty(columns: u16, rows: u16) -> (File, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo terminal");
    grantpt(&master).expect("the terminal is ours");
    unlockpt(&master).expect("the terminal unlocks");
    let name = ptsname(&master, Vec::new()).expect("the terminal has a name");
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        .expect("open the terminal");
    set_size(&slave, columns, rows);
    (File::from(master), slave)
}
