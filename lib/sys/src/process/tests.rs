use std::io::Read;
use std::time::Duration;

use super::*;

fn sh(script: &str) -> Spawn {
    Spawn::new("/bin/sh").arg("-c").arg(script)
}

fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

/// Runs `spawn` and returns its status and what it wrote.
fn run(spawn: Spawn) -> (u32, String) {
    let (ours, theirs) = pipe().unwrap();
    let child = spawn.stdout(theirs).spawn().unwrap();
    let text = read_all(ours);
    (child.wait().unwrap().status.status(), text)
}

#[test]
fn a_child_reports_its_exit_code_or_signal() {
    assert_eq!(sh("exit 7").spawn().unwrap().wait().unwrap().status.code(), Some(7));
    let killed = sh("kill -9 $$").spawn().unwrap().wait().unwrap().status;
    assert_eq!((killed.signal(), killed.status()), (Some(9), 137));
}

#[test]
fn the_environment_is_only_what_was_set() {
    let (status, text) = run(Spawn::new("/usr/bin/env").env("A", "1").env("B", "2").env("A", "3"));
    assert_eq!((status, text.as_str()), (0, "B=2\nA=3\n"));
}

#[test]
fn only_the_descriptors_asked_for_arrive() {
    let (ours, theirs) = pipe().unwrap();
    // A descriptor that is not close-on-exec, as a careless library leaves behind.
    let stray = theirs.try_clone().unwrap();
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    let child = sh("ls /proc/self/fd >&7; echo to-nine >&9")
        .descriptor(theirs.try_clone().unwrap(), 7)
        .descriptor(theirs, 9)
        .spawn()
        .unwrap();
    drop(stray);
    let text = read_all(ours);
    assert!(child.wait().unwrap().status.success());
    // `ls` itself opens 3 to list the directory.
    assert_eq!(text, "0\n1\n2\n3\n7\n9\nto-nine\n");
}

#[test]
fn descriptors_can_trade_places() {
    let (a_read, a_write) = pipe().unwrap();
    let (b_read, b_write) = pipe().unwrap();
    let (a, b) = (a_write.as_raw_fd(), b_write.as_raw_fd());
    let child = sh(&format!("echo was-b >/proc/self/fd/{a}; echo was-a >/proc/self/fd/{b}"))
        .descriptor(b_write, a)
        .descriptor(a_write, b)
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().status.success());
    assert_eq!((read_all(a_read), read_all(b_read)), ("was-a\n".into(), "was-b\n".into()));
}

#[test]
fn an_exec_error_names_the_step_and_the_program() {
    let error = Spawn::new("/no/such/program").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.os_error(), Some(libc::ENOENT));
    assert!(error.to_string().starts_with("start \"/no/such/program\": exec: "), "{error}");
    let error = sh("true").cwd("/no/such/dir").spawn().unwrap_err();
    assert!(error.to_string().contains("change directory"), "{error}");
    let error = Spawn::new("no-such-program-in-path").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = sh("a\0b").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_program_can_be_started_from_a_descriptor() {
    let file = File::open("/bin/sh").unwrap();
    let (status, text) = run(Spawn::from_fd(file.into(), "renamed").args(["-c", "echo $0 $1", "x", "y"]));
    assert_eq!((status, text.as_str()), (0, "x y\n"));
}

#[test]
fn signals_are_at_their_defaults_in_the_child() {
    // Rust ignores SIGPIPE, and an ignored signal would stay ignored across exec.
    let (status, text) = run(Spawn::new("/bin/cat").arg("/proc/self/status"));
    assert_eq!(status, 0);
    let sets =
        text.lines().filter(|line| ["SigBlk", "SigIgn", "SigCgt"].contains(&&line[..line.len().min(6)]));
    let sets: Vec<_> = sets.collect();
    assert_eq!(sets.len(), 3);
    assert!(sets.iter().all(|line| line.ends_with("\t0000000000000000")), "{sets:?}");
}

#[test]
fn a_new_session_is_led_by_the_child() {
    let (_, text) = run(sh("cat /proc/self/stat; echo $$").new_session());
    let mut lines = text.lines();
    let session = lines.next().unwrap().rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
    assert_eq!(Some(session), lines.next());
}

#[test]
fn waiting_ends_when_time_is_up() {
    let child = Spawn::new("/bin/sleep").arg("1000").spawn().unwrap();
    assert!(child.wait_timeout(Duration::from_millis(20)).unwrap().is_none());
    child.kill(libc::SIGKILL).unwrap();
    assert!(child.wait_timeout(Duration::from_secs(60)).unwrap().is_some());
}

#[test]
fn kill_works_until_the_exit_is_known() {
    let child = Spawn::new("/bin/sleep").arg("1000").spawn().unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().status.signal(), Some(libc::SIGTERM));
    assert_eq!(child.kill(libc::SIGTERM).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(child.kill(65).is_err());
}

#[test]
fn a_death_signal_does_not_come_when_the_callers_thread_ends() {
    let (ours, theirs) = pipe().unwrap();
    let spawn = sh("read line; echo alive").stdin(ours).parent_death_signal(libc::SIGKILL);
    let child = std::thread::spawn(|| spawn.spawn().unwrap()).join().unwrap();
    rustix::io::write(&theirs, b"go\n").unwrap();
    assert!(child.wait().unwrap().status.success());
}

#[test]
fn the_oom_score_is_the_childs_alone() {
    let before = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let (_, text) = run(sh("cat /proc/self/oom_score_adj").oom_score_adj(321));
    assert_eq!(text, "321\n");
    assert_eq!(std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(), before);
}

#[test]
fn children_started_side_by_side_keep_their_own_exits() {
    let threads: Vec<_> = (0..8u8)
        .map(|n| {
            std::thread::spawn(move || {
                for _ in 0..20 {
                    let exit = sh(&format!("exit {n}")).spawn().unwrap().wait().unwrap();
                    assert_eq!(exit.status.code(), Some(n));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn waiting_can_be_given_up_and_shared() {
    let (ours, theirs) = pipe().unwrap();
    let child = sh("read line; exit 3").stdin(ours).spawn_async().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(10), child.wait_async()).await.is_err());
    rustix::io::write(&theirs, b"go\n").unwrap();
    let (a, b) = tokio::join!(child.wait_async(), child.wait_async());
    assert_eq!(a.unwrap(), b.unwrap());
}

#[tokio::test]
async fn output_feeds_and_captures() {
    let capture = Capture { stdin: b"hello\n".repeat(50_000), ..Capture::default() };
    let output = sh("wc -c; echo oops >&2; exit 4").output(capture).await.unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "300000");
    assert_eq!(output.stderr, b"oops\n");
    assert!(!output.truncated);
}

#[tokio::test]
async fn output_keeps_no_more_than_its_bounds() {
    let capture = Capture { max_stdout_bytes: 10, ..Capture::default() };
    let output = sh("head -c 1000000 /dev/zero").output(capture).await.unwrap();
    assert!(output.status.success() && output.truncated);
    assert_eq!(output.stdout.len(), 10);
}

#[tokio::test]
async fn output_does_not_wait_for_what_the_program_leaves_running() {
    let (ours, theirs) = pipe().unwrap();
    // The background reader keeps stdout open until `theirs` is closed below.
    let run = sh("echo done; cat <&5 & exit 0").descriptor(ours, 5).output(Capture::default());
    let output = run.await.unwrap();
    assert_eq!(output.stdout, b"done\n");
    drop(theirs);
}

#[tokio::test]
async fn output_kills_at_the_deadline() {
    let capture = Capture { timeout: Some(Duration::from_millis(100)), ..Capture::default() };
    let error = sh("echo stuck here >&2; exec sleep 1000").output(capture).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.to_string().contains("stuck here"), "{error}");
}

#[tokio::test]
async fn what_a_program_says_last_is_never_lost() {
    for n in 0..300 {
        let script = format!("echo {n}");
        let output = Spawn::new("/bin/sh").arg("-c").arg(script).output(Capture::default()).await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{n}\n"));
    }
}
