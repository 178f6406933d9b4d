//! What must hold after a crash, once the daemon serves again.
//!
//! Everything that was answered is there, and nothing whose removal was answered; every record has its data; after a collection
//! everything on disk has a record; chains are sound; what ran still runs; nothing else is left; and the daemon's own check finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use gantry_client::Client;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions, Outcome};
use gantry_core::snapshots::SnapshotKind;
use gantry_core::tasks::TaskStatus;
use gantry_core::{Context, ErrorKind, Labels, LeaseId, Result, SnapshotKey};
use gantry_testkit::{Leftovers, scaled};
use sha2::{Digest as _, Sha256};

use crate::load::{self, IMAGE_SNAPSHOTTERS, RUN_NAMESPACE};
use crate::notes::{Kind, Note, Notes, Subject, There};
use crate::there::{Found, look};
use crate::trees;

/// What kind of crash it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The daemon was killed, or went on: every byte that it wrote is there.
    Kill,
    /// The machine lost power: what was not synced may be gone.
    PowerLoss,
}

/// Where to look.
pub(crate) struct Place {
    pub(crate) address: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    /// The daemon's process.
    pub(crate) daemon: u32,
}

/// How long what is done in the background may take.
const BACKGROUND: Duration = Duration::from_secs(20);
/// How long what has no owner may take to end: a shim looks every 30 seconds whether anybody can still need it.
const ABANDONED: Duration = Duration::from_secs(45);

/// Looks at everything, and brings the notes up to date: afterwards nothing in them is uncertain. Returns what is wrong.
///
/// # Errors
/// Those of calls that must not fail.
pub(crate) async fn check(place: &Place, notes: &Arc<Notes>, after: After) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let client = load::connect(&place.address, "default")?;
    let first = look(&client, &place.address).await?;
    for (subject, note) in notes.all() {
        let there = first.subjects.contains_key(&subject);
        let kept = note.owners.is_empty()
            || note.owners.iter().any(|owner| first.is_there(&subject.namespace, owner));
        let may_lack = after == After::PowerLoss && matches!(subject.kind, Kind::Ingest | Kind::Task);
        match note.there {
            There::Yes if kept && !there && !may_lack => wrong.push(format!("lost: {subject:?} {note:?}")),
            There::No if there => wrong.push(format!("came back: {subject:?}")),
            _ => {}
        }
        if there && let Some(text) = differs(&subject, &note, &first.subjects[&subject], after) {
            wrong.push(text);
        }
    }
    tidy(&client, notes, &first).await?;
    collect(&client).await?;
    let second = look(&client, &place.address).await?;
    let mut known = BTreeMap::new();
    for (subject, note) in notes.all() {
        let there = second.subjects.contains_key(&subject);
        let owners: Vec<String> =
            note.owners.iter().filter(|owner| second.is_there(&subject.namespace, owner)).cloned().collect();
        if !note.owners.is_empty() && owners.is_empty() {
            if there {
                wrong.push(format!("not collected: {subject:?} {note:?}"));
            }
            continue;
        }
        let removed = first.subjects.contains_key(&subject) && subject.namespace != RUN_NAMESPACE;
        if note.there == There::Yes && !there && removed {
            wrong.push(format!("collected: {subject:?} {note:?}"));
        }
        if there {
            known.insert(subject, Note { there: There::Yes, owners, ..note });
        }
    }
    notes.replace(known);
    chains(&second, &mut wrong);
    content(place, &second, &mut wrong);
    directories(place, &second, &mut wrong).await;
    inside(&client, notes, after, &mut wrong).await;
    left(place, notes, &mut wrong).await;
    if after == After::Kill {
        the_daemons_own(&client, &mut wrong).await?;
    }
    Ok(wrong)
}

/// What the daemon's own check finds: nothing.
async fn the_daemons_own(client: &Client, wrong: &mut Vec<String>) -> Result<()> {
    let options = CheckOptions { deep: true, repair: false };
    let mut events = client.services().maintenance.check(&Context::background(), options).await?;
    while let Some(event) = events.try_next().await? {
        // What is worth a note is nothing wrong: a write may be cut off between its record and its first byte.
        if let CheckEvent::Finding(finding) = event
            && finding.outcome != Outcome::Note
        {
            wrong.push(format!("fsck: {finding:?}"));
        }
    }
    Ok(())
}

/// What is wrong with an object's data.
fn differs(subject: &Subject, note: &Note, found: &str, after: After) -> Option<String> {
    let fits = match subject.kind {
        Kind::Container | Kind::Sandbox | Kind::Namespace | Kind::Blob => {
            note.facts.iter().any(|fact| fact == found)
        }
        Kind::Snapshot => note.facts.iter().any(|fact| fact.split(' ').next() == Some(found)),
        Kind::Ingest if after == After::Kill && note.there == There::Yes => {
            let written = note.facts.iter().filter_map(|fact| fact.parse::<u64>().ok()).min().unwrap_or(0);
            found.parse().is_ok_and(|offset: u64| offset >= written)
        }
        _ => true,
    };
    (!fits && !note.facts.is_empty()).then(|| format!("differs: {subject:?} is {found:?}, {note:?}"))
}

/// Does what a client does that comes back after it was cut off: ends what it had begun.
async fn tidy(client: &Client, notes: &Notes, found: &Found) -> Result<()> {
    let running = client.in_namespace(gantry_core::Namespace::parse(RUN_NAMESPACE)?);
    let certain = |kind: Kind, name: &str| {
        notes.get(&Subject::new(kind, RUN_NAMESPACE, name)).is_some_and(|note| note.there == There::Yes)
    };
    for subject in found.subjects.keys().filter(|subject| subject.namespace == RUN_NAMESPACE) {
        match subject.kind {
            Kind::Container | Kind::Task if !certain(Kind::Task, &subject.name) => {
                load::remove_container(&running, &subject.name).await?;
            }
            _ => {}
        }
    }
    for subject in found.subjects.keys().filter(|subject| subject.namespace == RUN_NAMESPACE) {
        if subject.kind == Kind::Snapshot
            && let Some(key) = subject.name.strip_prefix("overlayfs/t")
            && !certain(Kind::Task, &format!("t{key}"))
        {
            let key = SnapshotKey::parse(format!("t{key}"))?;
            match running.snapshotter("overlayfs")?.remove(&running.context(), &key).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    for subject in found.subjects.keys().filter(|subject| subject.kind == Kind::Lease) {
        if notes.get(subject).is_none() {
            let cx = Context::new(gantry_core::Namespace::parse(&*subject.namespace)?);
            let id = LeaseId::parse(&*subject.name)?;
            match client.services().leases.delete(&cx, &id, false).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Has garbage collected, and waits for it.
pub(crate) async fn collect(client: &Client) -> Result<()> {
    let id = LeaseId::parse(format!("collect-{:x}", rand::random::<u64>()))?;
    let (cx, leases) = (client.context(), &client.services().leases);
    leases.create(&cx, Some(id.clone()), Labels::new()).await?;
    leases.delete(&cx, &id, true).await
}

fn chains(found: &Found, wrong: &mut Vec<String>) {
    for (subject, info) in &found.snapshots {
        let Some(parent) = &info.parent else { continue };
        let snapshotter = subject.name.split('/').next().unwrap_or_default();
        let parent = Subject::new(Kind::Snapshot, &subject.namespace, format!("{snapshotter}/{parent}"));
        match found.snapshots.get(&parent) {
            Some(info) if info.kind == SnapshotKind::Committed => {}
            other => wrong.push(format!("chain: {subject:?} stands on {parent:?}, {other:?}")),
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn content(place: &Place, found: &Found, wrong: &mut Vec<String>) {
    let root = place.root.join("io.containerd.content.v1.content");
    let blobs = root.join("blobs/sha256");
    let on_disk: BTreeSet<String> = names(&blobs).into_iter().map(|hex| format!("sha256:{hex}")).collect();
    let recorded: BTreeSet<String> = found.names(Kind::Blob);
    for digest in recorded.difference(&on_disk) {
        wrong.push(format!("a record without blob: {digest}"));
    }
    for digest in on_disk.difference(&recorded) {
        wrong.push(format!("a blob without record: {digest}"));
    }
    for hex in names(&blobs) {
        match fs::read(blobs.join(&hex)) {
            Ok(data) if trees::hex(&Sha256::digest(&data)) == hex => {}
            Ok(data) => wrong.push(format!("blob {hex} has {} bytes of another digest", data.len())),
            Err(error) => wrong.push(format!("blob {hex}: {error}")),
        }
    }
    let ingests = names(&root.join("ingest")).len();
    let recorded = found.subjects.keys().filter(|subject| subject.kind == Kind::Ingest).count();
    if ingests != recorded {
        wrong.push(format!("{ingests} directories of writes in progress, {recorded} records"));
    }
}

async fn directories(place: &Place, found: &Found, wrong: &mut Vec<String>) {
    let end = Instant::now() + scaled(BACKGROUND);
    for snapshotter in IMAGE_SNAPSHOTTERS {
        let all = place.root.join(format!("io.containerd.snapshotter.v1.{snapshotter}/snapshots"));
        let prefix = format!("{snapshotter}/");
        let recorded = found.snapshots.keys().filter(|subject| subject.name.starts_with(&prefix)).count();
        loop {
            let names = names(&all);
            let numbers = names.iter().filter(|name| name.parse::<u64>().is_ok()).count();
            let other: Vec<&String> = names.iter().filter(|name| name.parse::<u64>().is_err()).collect();
            if numbers == recorded && other.is_empty() {
                break;
            }
            if Instant::now() > end {
                wrong.push(format!(
                    "{snapshotter}: {numbers} directories, {recorded} records, besides {other:?}"
                ));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Looks into snapshots and at what runs.
async fn inside(client: &Client, notes: &Arc<Notes>, after: After, wrong: &mut Vec<String>) {
    for (subject, note) in notes.all() {
        let Ok(namespace) = gantry_core::Namespace::parse(&*subject.namespace) else { continue };
        let client = client.in_namespace(namespace);
        match subject.kind {
            Kind::Snapshot if after == After::Kill => {
                for mark in note.facts.iter().filter_map(|fact| fact.strip_prefix("committed ")) {
                    let name = subject.name.split_once('/').map_or("", |(_, name)| name);
                    match fs::read_to_string(mark) {
                        Ok(text) if text == name => {}
                        other => wrong.push(format!("mark of {subject:?} at {mark}: {other:?}")),
                    }
                }
            }
            Kind::Image => {
                for fact in note.facts.iter().filter_map(|fact| fact.strip_prefix("unpacked ")) {
                    let mut words = fact.split(' ');
                    let (snapshotter, chain, sum) = (words.next(), words.next(), words.next());
                    let found = load::tree(&client, snapshotter.unwrap_or(""), chain.unwrap_or("")).await;
                    match found {
                        Ok(found) if Some(&*found) == sum => {}
                        other => wrong.push(format!("tree of {subject:?}, {fact}: {other:?}")),
                    }
                }
            }
            Kind::Task => {
                let pid = note.facts.first().cloned().unwrap_or_default();
                let cx = client.context();
                match client.services().tasks.get(&cx, &subject.name, "").await {
                    Ok(task) if task.status == TaskStatus::Running && task.pid.to_string() == pid => {}
                    other => wrong.push(format!("task {subject:?} of process {pid}: {other:?}")),
                }
                if !Path::new("/proc").join(&pid).exists() {
                    wrong.push(format!("process {pid} of {subject:?} is gone"));
                }
            }
            _ => {}
        }
    }
}

/// What has no owner: mounts, processes, cgroups, bundles, sockets.
async fn left(place: &Place, notes: &Notes, wrong: &mut Vec<String>) {
    let tasks: Vec<(Subject, Note)> =
        notes.all().into_iter().filter(|(subject, _)| subject.kind == Kind::Task).collect();
    let owned = |line: &str| {
        line.starts_with("ingest ")
            || tasks.iter().any(|(subject, note)| {
                let process = note.facts.first().map(|pid| format!("process {pid} "));
                line.contains(&subject.name) || process.is_some_and(|process| line.starts_with(&process))
            })
    };
    let end = Instant::now() + scaled(ABANDONED);
    loop {
        let mut found = Leftovers::of(&place.root, &place.state, &[place.daemon]).list();
        found.retain(|line| !owned(line));
        let sockets = found.iter().filter(|line| line.starts_with("socket ")).count();
        if sockets <= tasks.len() {
            found.retain(|line| !line.starts_with("socket "));
        }
        found.extend(
            names(&place.root.join("tmpmounts")).into_iter().map(|name| format!("temporary mount {name}")),
        );
        if found.is_empty() {
            return;
        }
        if Instant::now() > end {
            wrong.extend(found.into_iter().map(|line| format!("left: {line}")));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
