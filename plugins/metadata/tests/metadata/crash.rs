//! Kills a process that writes, at random moments, and looks at what is left.
//!
//! `GANTRY_CRASH_ROUNDS` says how often; 5 times by default.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
#[allow(clippy::disallowed_types)]
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gantry_core::containers::{Container, ContainerStore};
use gantry_core::content::ContentStore;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotDriver, Snapshotter};
use gantry_core::{ContainerId, Digest, Result};
use gantry_metadata::MetadataConfig;

use crate::support::{World, all, cx, key, labels};

const DIRECTORY: &str = "GANTRY_METADATA_CRASH_DIR";
const ROOT: (&str, &str) = ("containerd.io/gc.root", "x");

/// Says that something has happened, or is about to: `+` it is there, `?` it may go, `-` it is gone.
fn say(sign: char, what: &str, name: &str) {
    let line = format!("@{sign} {what} {name}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

async fn one_step(world: &World, name: &str) -> Result<()> {
    let n = cx("n");
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    match rand::random_range(0..4) {
        0 => {
            let containers = world.metadata.containers();
            containers.create(&n, Container::new(ContainerId::parse(name)?, "runtime")).await?;
            say('+', "container", name);
            if rand::random() {
                say('?', "container", name);
                containers.delete(&n, name).await?;
                say('-', "container", name);
            }
        }
        1 => {
            let rooted: bool = rand::random();
            let with = if rooted { labels(&[ROOT]) } else { labels(&[]) };
            let digest = world.try_blob(&n, name.as_bytes(), with).await?;
            if rooted {
                say('+', "blob", digest.as_str());
            }
            if rooted && rand::random() {
                say('?', "blob", digest.as_str());
                world.metadata.content().delete(&n, &digest).await?;
                say('-', "blob", digest.as_str());
            }
        }
        2 => {
            let (active, committed) = (format!("active-{name}"), format!("committed-{name}"));
            let prepared = NewSnapshot { key: key(&active), parent: None, labels: labels(&[ROOT]) };
            snapshotter.prepare(&n, prepared).await?;
            say('+', "snapshot", &active);
            say('?', "snapshot", &active);
            let how = CommitSnapshot {
                name: key(&committed),
                key: key(&active),
                labels: labels(&[ROOT]),
                parent: None,
            };
            snapshotter.commit(&n, how).await?;
            say('-', "snapshot", &active);
            say('+', "snapshot", &committed);
            let child = format!("child-{name}");
            let prepared =
                NewSnapshot { key: key(&child), parent: Some(key(&committed)), labels: labels(&[ROOT]) };
            snapshotter.prepare(&n, prepared).await?;
            say('+', "snapshot", &child);
            if rand::random() {
                for gone in [&child, &committed] {
                    say('?', "snapshot", gone);
                    snapshotter.remove(&n, &key(gone)).await?;
                    say('-', "snapshot", gone);
                }
            }
        }
        _ => drop(world.metadata.collect().await?),
    }
    Ok(())
}

/// Does nothing unless the crash test started it, and then never ends by itself.
#[test]
fn child_of_the_crash_test() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let world = Arc::new(World::open(Path::new(&directory)).await);
        let life = std::process::id();
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..6 {
            let world = Arc::clone(&world);
            workers.spawn(async move {
                for step in 0.. {
                    one_step(&world, &format!("{life}.{worker}.{step}")).await.unwrap();
                }
            });
        }
        say('+', "ready", "ready");
        workers.join_all().await;
    });
}

/// What the child has said: true for what is there, false for what may or may not be.
type Said = BTreeMap<(String, String), bool>;

#[allow(clippy::disallowed_types)]
fn run_and_kill(directory: &Path, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_of_the_crash_test", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hear = |line: String, said: &mut Said| {
        let Some(rest) = line.split_once('@').map(|(_, rest)| rest.to_owned()) else { return false };
        let mut words = rest.split(' ');
        let (Some(sign), Some(what), Some(name)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let subject = (what.to_owned(), name.to_owned());
        match sign {
            "+" => drop(said.insert(subject, true)),
            "?" => drop(said.insert(subject, false)),
            _ => drop(said.remove(&subject)),
        }
        what == "ready"
    };
    while !hear(lines.next().expect("the child runs").unwrap(), said) {}
    let reader = std::thread::spawn(move || {
        // A line that the kill cut off was not said.
        lines.map_while(std::io::Result::ok).collect::<Vec<_>>()
    });
    std::thread::sleep(Duration::from_millis(rand::random_range(20..400)));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut heard = reader.join().unwrap();
    if heard.last().is_some_and(|last| last.split(' ').count() != 3) {
        heard.pop();
    }
    for line in heard {
        hear(line, said);
    }
    said.remove(&("ready".to_owned(), "ready".to_owned()));
}

async fn look(directory: &Path, said: &mut Said) {
    let n = cx("n");
    let world = World::open_with(directory, MetadataConfig::default(), None).await;
    assert_eq!(world.metadata.recovery().missing, [], "a snapshot without its directory");
    let snapshotter = world.metadata.snapshotter("plain").unwrap();
    let blobs = all(world.metadata.content().list(&n, &[]).await.unwrap()).await;
    for blob in &blobs {
        assert!(world.content.blob_path(&blob.digest).exists(), "a record without its blob: {}", blob.digest);
    }
    world.metadata.collect().await.unwrap();
    let mut there: BTreeSet<(String, String)> = BTreeSet::new();
    for container in all(world.metadata.containers().list(&n, &[]).await.unwrap()).await {
        there.insert(("container".into(), container.id.into_string()));
    }
    let blobs = all(world.metadata.content().list(&n, &[]).await.unwrap()).await;
    let digests: BTreeSet<Digest> = blobs.into_iter().map(|blob| blob.digest).collect();
    there.extend(digests.iter().map(|digest| ("blob".to_owned(), digest.to_string())));
    let infos = all(snapshotter.list(&n, &[]).await.unwrap()).await;
    there.extend(infos.iter().map(|info| ("snapshot".to_owned(), info.name.as_str().to_owned())));
    for (subject, certain) in said.iter() {
        assert!(!certain || there.contains(subject), "{subject:?} was answered as done and is not there");
    }
    // What is on disk has a record, and the other way round.
    let files: BTreeSet<Digest> = all(ContentStore::list(world.content.as_ref(), &n, &[]).await.unwrap())
        .await
        .into_iter()
        .map(|b| b.digest)
        .collect();
    assert_eq!(files, digests);
    assert_eq!(world.driver.ids().unwrap().len(), infos.len());
    let open = ContentStore::statuses(world.content.as_ref(), &n, &[]).await.unwrap();
    let known = world.metadata.content().statuses(&n, &[]).await.unwrap();
    assert_eq!(open.len(), known.len());
    // The next life begins with what is there now.
    *said = there.into_iter().map(|subject| (subject, true)).collect();
    drop(world.metadata.close(Duration::from_secs(10)).await);
}

#[test]
fn a_killed_process_leaves_what_it_answered_and_no_record_without_data() {
    let rounds = std::env::var("GANTRY_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..rounds {
        run_and_kill(dir.path(), &mut said);
        runtime.block_on(look(dir.path(), &mut said));
    }
    assert!(!said.is_empty());
}
