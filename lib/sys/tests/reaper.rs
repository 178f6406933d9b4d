//! A binary of its own with one test: a reaper takes the exits of the whole process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::Read;

use gantry_core::ErrorKind;
use gantry_sys::Spawn;
use gantry_sys::process::pipe;
use gantry_sys::reaper::{Expectation, Reaper};

/// Starts a shell that leaves `script` behind as an orphan, and returns the orphan's pid. The script
/// begins only when its first parent is gone, which could take its exit otherwise.
async fn orphan(script: &str) -> i32 {
    let (ours, theirs) = pipe().unwrap();
    let (waits, go) = pipe().unwrap();
    let line = format!("sh -c 'read line <&5; {script}' >/dev/null & echo $!");
    let parent =
        Spawn::new("/bin/sh").arg("-c").arg(line).stdout(theirs).descriptor(waits, 5).spawn().unwrap();
    let mut text = String::new();
    File::from(ours).read_to_string(&mut text).unwrap();
    assert!(parent.wait_async().await.unwrap().status.success());
    drop(go);
    text.trim().parse().unwrap()
}

fn exists(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn gone(pid: i32) {
    while exists(pid) {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_reaped_and_registered_ones_report() {
    let reaper = Reaper::new().unwrap();
    assert_eq!(Reaper::new().unwrap_err().kind(), ErrorKind::FailedPrecondition);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(reaper.run(async {
            drop(stopped.await);
        }))
    });

    // A stranger just vanishes.
    let pid = orphan("exit 1").await;
    gone(pid).await;

    // One that is registered while it runs reports its end.
    let expectation = Expectation::begin();
    let pid = orphan("sleep 1000; exit 1").await;
    let follow = expectation.register(pid).unwrap();
    assert!(follow.try_wait().unwrap().is_none());
    follow.kill(libc::SIGUSR1).unwrap();
    assert_eq!(follow.wait_async().await.unwrap().status.signal(), Some(libc::SIGUSR1));

    // One that ended before it was registered too.
    let pid = orphan("exit 42").await;
    gone(pid).await;
    let follow = expectation.register(pid).unwrap();
    assert_eq!(follow.wait_async().await.unwrap().status.code(), Some(42));
    assert_eq!(follow.kill(9).unwrap_err().kind(), ErrorKind::NotFound);
    drop(expectation);

    // One that its own parent waits for is lost to us, and says so.
    let expectation = Expectation::begin();
    let (ours, theirs) = pipe().unwrap();
    let line = "sleep 1000 & echo $!; wait";
    let parent = Spawn::new("/bin/sh").args(["-c", line]).stdout(theirs).spawn().unwrap();
    let mut number = [0; 32];
    let length = rustix::io::read(&ours, &mut number).unwrap();
    let pid = std::str::from_utf8(&number[..length]).unwrap().trim().parse().unwrap();
    let follow = expectation.register(pid).unwrap();
    follow.kill(libc::SIGKILL).unwrap();
    parent.wait_async().await.unwrap();
    assert_eq!(follow.wait_async().await.unwrap_err().kind(), ErrorKind::Internal);
    drop(expectation);

    // Nothing was expected, so nothing was kept.
    let pid = orphan("exit 43").await;
    gone(pid).await;
    let error = Expectation::begin().register(pid).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    // Children of our own get theirs, however quick they are.
    for n in 0..200u8 {
        let child = Spawn::new("/bin/sh").arg("-c").arg(format!("exit {n}")).spawn().unwrap();
        assert_eq!(child.wait_async().await.unwrap().status.code(), Some(n));
    }

    // One that was spawned here and ended before it was registered is not lost either.
    let expectation = Expectation::begin();
    let child = Spawn::new("/bin/sh").args(["-c", "exit 44"]).spawn().unwrap();
    let pid = child.pid();
    gone(pid).await;
    drop(child);
    assert_eq!(expectation.register(pid).unwrap().wait_async().await.unwrap().status.code(), Some(44));
    drop(expectation);

    // A dropped child leaves no zombie.
    let child = Spawn::new("/bin/true").spawn().unwrap();
    let pid = child.pid();
    drop(child);
    gone(pid).await;

    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}
