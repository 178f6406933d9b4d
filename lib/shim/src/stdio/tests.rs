use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn fifo(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    path.to_str().unwrap().to_owned()
}

fn fd(stream: &mut Stdio) -> std::fs::File {
    match std::mem::take(stream) {
        Stdio::Fd(fd) => fd.into(),
        other => panic!("{other:?}"),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn output_reaches_a_reader_that_comes_late_and_ends_after_close() {
    let dir = tempfile::tempdir().unwrap();
    let stdout = fifo(dir.path(), "out");
    let io = TaskIo { stdout: stdout.clone(), ..TaskIo::default() };
    let (Io::Streams(mut streams), plumbing) = Plumbing::open(&io, &Owner::default()).await.unwrap() else {
        panic!("no terminal was asked for")
    };
    assert!(matches!(streams[0], Stdio::Null) && matches!(streams[2], Stdio::Null));
    let running = plumbing.run(None).unwrap();
    let mut process = fd(&mut streams[1]);
    process.write_all(b"early ").unwrap();
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::open(stdout).unwrap().read_to_string(&mut text).unwrap();
        text
    });
    let big = "x".repeat(300_000);
    let sent = big.clone();
    blocking(move || process.write_all(sent.as_bytes()).unwrap()).await;
    running.close(Duration::from_secs(30)).await;
    assert_eq!(reader.await.unwrap(), format!("early {big}"));
}

#[tokio::test]
async fn input_stays_open_until_it_is_closed_and_everything_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let stdin = fifo(dir.path(), "in");
    let io = TaskIo { stdin: stdin.clone(), ..TaskIo::default() };
    let (Io::Streams(mut streams), plumbing) = Plumbing::open(&io, &Owner::default()).await.unwrap() else {
        panic!("no terminal was asked for")
    };
    let mut running = plumbing.run(None).unwrap();
    let mut process = fd(&mut streams[0]);
    for text in ["first ", "second "] {
        let stdin = stdin.clone();
        blocking(move || {
            std::fs::OpenOptions::new().write(true).open(stdin).unwrap().write_all(text.as_bytes()).unwrap()
        })
        .await;
    }
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        process.read_to_string(&mut text).unwrap();
        text
    });
    running.close_stdin();
    assert_eq!(reader.await.unwrap(), "first second ");
    running.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_leftover_holder_of_the_pipe_does_not_hold_up_closing() {
    let dir = tempfile::tempdir().unwrap();
    let io = TaskIo { stdout: fifo(dir.path(), "out"), ..TaskIo::default() };
    let (Io::Streams(mut streams), plumbing) = Plumbing::open(&io, &Owner::default()).await.unwrap() else {
        panic!("no terminal was asked for")
    };
    let mut leftover = fd(&mut streams[1]);
    plumbing.run(None).unwrap().close(Duration::from_millis(10)).await;
    assert_eq!(leftover.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn file_urls_collect_output_and_errors_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/a b.log");
    let io = TaskIo {
        stdout: format!("file://{}/made/a%20b.log", dir.path().display()),
        stderr: format!("file://{}/other.log", dir.path().display()),
        ..TaskIo::default()
    };
    let (Io::Streams(mut streams), plumbing) = Plumbing::open(&io, &Owner::default()).await.unwrap() else {
        panic!("no terminal was asked for")
    };
    let running = plumbing.run(None).unwrap();
    fd(&mut streams[1]).write_all(b"out\n").unwrap();
    fd(&mut streams[2]).write_all(b"err\n").unwrap();
    running.close(Duration::from_secs(30)).await;
    let mut lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    assert!(!dir.path().join("other.log").exists());
}

fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("logger");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_logger_gets_the_output_its_arguments_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let text = "#!/bin/sh\ntrap '' TERM\nexec 5>&-\n{ echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\"; cat <&3; } > \"$2\"\n";
    let path = script(dir.path(), text);
    let log = dir.path().join("log");
    let io =
        TaskIo { stdout: format!("binary://{}?file={}", path.display(), log.display()), ..TaskIo::default() };
    let owner = Owner { container_id: "web".into(), namespace: "ns".into(), uid: 0, gid: 0 };
    let (Io::Streams(mut streams), plumbing) = Plumbing::open(&io, &owner).await.unwrap() else {
        panic!("no terminal was asked for")
    };
    let running = plumbing.run(None).unwrap();
    fd(&mut streams[1]).write_all(b"hello\n").unwrap();
    drop(streams);
    running.close(Duration::from_secs(1)).await;
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said, format!("web ns file {}\nhello\n", log.display()));
}

#[tokio::test]
async fn bad_outputs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for stdout in [
        "gopher://x/y".to_owned(),
        format!("{}/none", dir.path().display()),
        dir.path().display().to_string(),
        "binary://relative".to_owned(),
        "file:///a%zz".to_owned(),
        format!("binary://{}/none", dir.path().display()),
    ] {
        let io = TaskIo { stdout, ..TaskIo::default() };
        assert!(Plumbing::open(&io, &Owner::default()).await.is_err(), "{io:?}");
    }
    let file = dir.path().join("plain");
    std::fs::write(&file, "").unwrap();
    let io = TaskIo { stdin: file.display().to_string(), ..TaskIo::default() };
    assert!(Plumbing::open(&io, &Owner::default()).await.is_err());
}
