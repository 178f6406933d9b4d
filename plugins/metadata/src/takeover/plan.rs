//! What is to be stored: containerd's records, compared with each other and with what lies on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;

use gantry_bolt::Database;
use gantry_core::Namespace;
use gantry_core::snapshots::{SnapshotInfo, SnapshotUsage};
use gantry_core::{Result, ResultExt as _, SnapshotKey};

use super::backend::{self, Backend};
use super::mounts::{self, Mounted};
use super::read::{self, Named, Records};
use super::report::{Consequence, Counts, Problem, Report};
use super::{Root, Snapshotter};

/// Source: containerd's directories, as plugin kind and id name them.
const TASKS_OF_RUNTIME_V1: &str = "io.containerd.runtime.v1.linux";
const BUNDLES: &str = "io.containerd.runtime.v2.task";

/// A snapshot with everything that its row needs.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) namespace: Namespace,
    pub(super) snapshotter: String,
    pub(super) info: SnapshotInfo,
    pub(super) directory: u64,
    pub(super) usage: Option<SnapshotUsage>,
    /// Its directory is not there.
    pub(super) missing: bool,
}

/// What is to be stored.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) namespaces: BTreeMap<Namespace, Records>,
    /// Of all namespaces, parents before their children.
    pub(super) snapshots: Vec<Snapshot>,
    /// Of all namespaces.
    pub(super) mounts: Vec<Mounted>,
    /// The highest number of any directory, containerd's counters included.
    pub(super) highest_directory: u64,
}

/// The files that were read, still locked.
pub(super) struct Opened {
    pub(super) meta: Database,
    /// By the snapshotter's name; those that have one.
    pub(super) snapshotters: BTreeMap<String, Database>,
    /// The mount manager's, if it has one; or why that cannot be read.
    pub(super) mounts: Option<Result<Database>>,
}

/// Reads and compares everything.
///
/// # Errors
/// Those of the files; what concerns single records is in `report`.
pub(super) fn make(root: &Root, opened: &Opened, report: &mut Report) -> Result<Plan> {
    let mut plan = Plan { namespaces: read::read(&opened.meta, report)?, ..Plan::default() };
    for (namespace, records) in &mut plan.namespaces {
        check_blobs(root, namespace, records, report)?;
        check_runtimes(root, namespace, records, report);
    }
    let mut named: BTreeMap<String, Vec<(Namespace, Named)>> = BTreeMap::new();
    for (namespace, records) in &mut plan.namespaces {
        for snapshot in std::mem::take(&mut records.snapshots) {
            named.entry(snapshot.snapshotter.clone()).or_default().push((namespace.clone(), snapshot));
        }
    }
    for snapshotter in &root.snapshotters {
        let named = named.remove(&snapshotter.name).unwrap_or_default();
        let database = opened.snapshotters.get(&snapshotter.name);
        let mut joining = Joining { snapshotter, named, known: HashMap::new(), report };
        if let Some(database) = database {
            joining.known = backend::read(database, &snapshotter.name, joining.report)?;
            let root = database.root()?.bucket("v1")?.map(|v1| v1.bucket("snapshots")).transpose()?.flatten();
            plan.highest_directory = plan.highest_directory.max(root.map_or(0, |bucket| bucket.sequence()));
        }
        let found = joining.join(database.is_some())?;
        plan.snapshots.extend(found);
    }
    for (snapshotter, named) in named {
        report.add(without_snapshotter(&snapshotter, &named));
    }
    plan.mounts = read_mounts(opened, report);
    let highest = plan.snapshots.iter().map(|snapshot| snapshot.directory).max().unwrap_or(0);
    plan.highest_directory = plan.highest_directory.max(highest);
    count(&plan, report);
    Ok(plan)
}

/// Every blob has its file, as long as its record says; others are left out.
fn check_blobs(root: &Root, namespace: &Namespace, records: &mut Records, report: &mut Report) -> Result<()> {
    let mut kept = Vec::new();
    for blob in std::mem::take(&mut records.blobs) {
        let path = root.content.join("blobs").join(blob.digest.algorithm()).join(blob.digest.hex());
        let wrong = match std::fs::symlink_metadata(&path) {
            Ok(file) if !file.is_file() => Some("is no regular file".to_owned()),
            Ok(file) if file.len() != blob.size_bytes => {
                Some(format!("has {} bytes, and the record says {}", file.len(), blob.size_bytes))
            }
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("is not there".to_owned()),
            Err(error) => return Err(error).with_context(|| format!("look at blob {}", path.display())),
        };
        match wrong {
            None => kept.push(blob),
            Some(wrong) => report.add(Problem::new(
                Consequence::LeftOut,
                format!(
                    "blob {} of namespace {namespace}: its file {wrong}; the next pull fetches it",
                    blob.digest
                ),
            )),
        }
    }
    records.blobs = kept;
    Ok(())
}

/// The runtime of containerd's first shims is not there any more.
fn check_runtimes(root: &Root, namespace: &Namespace, records: &Records, report: &mut Report) {
    for container in records.containers.iter().filter(|found| found.runtime.name == TASKS_OF_RUNTIME_V1) {
        let name = format!("container {} of namespace {namespace}", container.id);
        let bundle =
            root.state.join(TASKS_OF_RUNTIME_V1).join(namespace.as_str()).join(container.id.as_str());
        if bundle.exists() {
            let text = format!(
                "{name} runs under the runtime {TASKS_OF_RUNTIME_V1}, which gantryd has not: end it first"
            );
            report.add(Problem::new(Consequence::Refuses("runtime-v1".to_owned()), text));
        } else {
            let text = format!("{name} cannot be started: gantryd has no runtime {TASKS_OF_RUNTIME_V1}");
            report.add(Problem::new(Consequence::Told, text));
        }
    }
    let bundles = root.state.join(BUNDLES).join(namespace.as_str());
    let running = std::fs::read_dir(bundles).map_or(0, Iterator::count);
    if running > 0 {
        let text = format!("namespace {namespace}: {running} tasks go on under their shims and are taken up");
        report.add(Problem::new(Consequence::Told, text));
    }
}

/// The word by which a damaged database of the mount manager is left out.
const MOUNTS: &str = "mounts";

/// What containerd's mount manager keeps mounted.
fn read_mounts(opened: &Opened, report: &mut Report) -> Vec<Mounted> {
    let wrong = match &opened.mounts {
        None => return Vec::new(),
        Some(Ok(database)) => match mounts::read(database, report) {
            Ok(mounted) => return mounted,
            Err(error) => error.to_string(),
        },
        Some(Err(error)) => error.to_string(),
    };
    let text = format!("{wrong}; without it, what it speaks of stays mounted until the next reboot");
    report.add(Problem::new(Consequence::Refuses(MOUNTS.to_owned()), text));
    Vec::new()
}

fn without_snapshotter(snapshotter: &str, named: &[(Namespace, Named)]) -> Problem {
    let namespaces: BTreeSet<&str> = named.iter().map(|(namespace, _)| namespace.as_str()).collect();
    let namespaces = namespaces.into_iter().collect::<Vec<_>>().join(", ");
    let text = format!(
        "{} snapshots of {snapshotter} (namespaces {namespaces}): gantryd has no such snapshotter. Without them \
         the containers that stand on them cannot be started, and images have to be unpacked again by another \
         snapshotter; their data stays where it is",
        named.len()
    );
    Problem::new(Consequence::Refuses(snapshotter.to_owned()), text)
}

fn count(plan: &Plan, report: &mut Report) {
    for (namespace, records) in &plan.namespaces {
        let counts = Counts {
            containers: records.containers.len(),
            images: records.images.len(),
            blobs: records.blobs.len(),
            ingests: records.ingests.len(),
            leases: records.leases.len(),
            sandboxes: records.sandboxes.len(),
            mounts: 0,
            snapshots: BTreeMap::new(),
        };
        report.namespaces.insert(namespace.to_string(), counts);
    }
    for snapshot in &plan.snapshots {
        let counts = report.namespaces.entry(snapshot.namespace.to_string()).or_default();
        *counts.snapshots.entry(snapshot.snapshotter.clone()).or_default() += 1;
    }
    for mounted in &plan.mounts {
        report.namespaces.entry(mounted.namespace.to_string()).or_default().mounts += 1;
    }
}

/// Where a snapshot stands among those of one snapshotter: its namespace and key.
type Place = (Namespace, String);

/// A name with what its snapshotter knows.
struct Joined {
    namespace: Namespace,
    named: Named,
    backend: Backend,
}

impl Joined {
    fn parent(&self) -> Option<Place> {
        self.named.parent.clone().map(|parent| (self.namespace.clone(), parent))
    }
}

/// Brings the names of `meta.db` and one snapshotter's own records together.
struct Joining<'a> {
    snapshotter: &'a Snapshotter,
    named: Vec<(Namespace, Named)>,
    known: HashMap<String, Backend>,
    report: &'a mut Report,
}

impl Joining<'_> {
    fn name(&self, namespace: &Namespace, key: &str) -> String {
        format!("snapshot {key:?} of {} in namespace {namespace}", self.snapshotter.name)
    }

    fn join(mut self, has_database: bool) -> Result<Vec<Snapshot>> {
        let named = std::mem::take(&mut self.named);
        if !has_database && !named.is_empty() {
            let path = self.snapshotter.root.join("metadata.db");
            let text = format!(
                "{} snapshots of {}: {} is not there",
                named.len(),
                self.snapshotter.name,
                path.display()
            );
            self.report.add(Problem::damaged(text));
            return Ok(Vec::new());
        }
        let mut waiting = Vec::new();
        for (namespace, snapshot) in named {
            match self.known.get(&snapshot.backend).cloned() {
                Some(backend) => waiting.push(Joined { namespace, named: snapshot, backend }),
                None => {
                    let name = self.name(&namespace, &snapshot.key);
                    let text = format!(
                        "{name}: its snapshotter does not know it; containerd does not list it either"
                    );
                    self.report.add(Problem::new(Consequence::LeftOut, text));
                }
            }
        }
        let found = self.in_order(waiting)?;
        let directories: HashSet<u64> = found.iter().map(|snapshot| snapshot.directory).collect();
        self.count_others(&directories);
        Ok(found)
    }

    /// Parents before their children; what has no parent here, or shares a directory, is damaged.
    fn in_order(&mut self, waiting: Vec<Joined>) -> Result<Vec<Snapshot>> {
        let mut children: HashMap<Option<Place>, Vec<Joined>> = HashMap::new();
        for joined in waiting {
            children.entry(joined.parent()).or_default().push(joined);
        }
        let mut found = Vec::new();
        let mut directories = HashSet::new();
        let first = children.remove(&None).unwrap_or_default();
        // Each with the snapshotter's name of its parent.
        let mut ready: VecDeque<(Joined, Option<String>)> =
            first.into_iter().map(|joined| (joined, None)).collect();
        while let Some((joined, parent)) = ready.pop_front() {
            let name = self.name(&joined.namespace, &joined.named.key);
            if parent != joined.backend.parent {
                let text = format!("{name}: containerd and its snapshotter name different parents");
                self.report.add(Problem::damaged(text));
                continue;
            }
            if !directories.insert(joined.backend.directory) {
                self.report.add(Problem::damaged(format!("{name}: shares a directory with another")));
                continue;
            }
            let place = (joined.namespace.clone(), joined.named.key.clone());
            let parent = Some(joined.named.backend.clone());
            let next = children.remove(&Some(place)).unwrap_or_default();
            ready.extend(next.into_iter().map(|child| (child, parent.clone())));
            found.push(self.one(joined)?);
        }
        for joined in children.into_values().flatten() {
            let name = self.name(&joined.namespace, &joined.named.key);
            let parent = joined.named.parent.unwrap_or_default();
            let text = format!("{name}: its parent {parent:?} is not there, or damaged");
            self.report.add(Problem::damaged(text));
        }
        Ok(found)
    }

    fn one(&mut self, joined: Joined) -> Result<Snapshot> {
        let Joined { namespace, named, backend } = joined;
        let path = self.snapshotter.root.join("snapshots").join(backend.directory.to_string());
        let missing = !is_directory(&path)?;
        if missing {
            let text = format!(
                "{}: its directory {} is not there",
                self.name(&namespace, &named.key),
                path.display()
            );
            self.report.add(Problem::new(Consequence::Marked, text));
        }
        // Source: containerd lists the snapshotter's own labels under those of its database.
        let mut labels = backend.labels;
        labels.extend(named.labels);
        Ok(Snapshot {
            namespace,
            snapshotter: self.snapshotter.name.clone(),
            info: SnapshotInfo {
                name: SnapshotKey::parse(named.key)?,
                parent: named.parent.map(SnapshotKey::parse).transpose()?,
                kind: backend.kind,
                created_at: named.created_at,
                updated_at: named.updated_at,
                labels,
            },
            directory: backend.directory,
            usage: backend.usage,
            missing,
        })
    }

    /// Directories that no record names go at the first start.
    fn count_others(&mut self, directories: &HashSet<u64>) {
        let all = self.snapshotter.root.join("snapshots");
        let names = std::fs::read_dir(&all).into_iter().flatten().flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let others = numbers.filter(|number| !directories.contains(number)).count();
        if others > 0 {
            let text = format!("{others} directories in {} that no record names are removed", all.display());
            self.report.add(Problem::new(Consequence::Told, text));
        }
    }
}

fn is_directory(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}
