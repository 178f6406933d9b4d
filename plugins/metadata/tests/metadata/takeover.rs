//! Taking over a root that containerd 1.6 left: its databases as they were recorded, and files of the right lengths.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use gantry_core::containers::ContainerStore as _;
use gantry_core::content::ContentStore;
use gantry_core::events::EventPublisher;
use gantry_core::images::ImageStore as _;
use gantry_core::leases::LeaseManager as _;
use gantry_core::mount::Mount;
use gantry_core::mounts::MountRecords as _;
use gantry_core::namespaces::NamespaceStore as _;
use gantry_core::sandboxes::SandboxStore as _;
use gantry_core::snapshots::{
    DriverSnapshot, NewSnapshot, SnapshotDriver, SnapshotId, SnapshotKind, SnapshotUsage, Snapshotter as _,
};
use gantry_core::{ErrorKind, Labels, LeaseId, Result};
use gantry_metadata::takeover::{
    Consequence, Outcome, Refusal, Report, Root, Snapshotter, Takeover, take_over,
};
use gantry_metadata::{Metadata, MetadataConfig, MetadataParts};

use crate::support::{DirectoryDriver, Ear, all, cx, key, labels};

/// Made with `ctr`: two namespaces with 41 images, a lease, a container and two snapshots each; an ingest.
const META: &[u8] = include_bytes!("../../../../lib/bolt/tests/data/containerd-1.6.db.gz");
const OVERLAYFS: &[u8] = include_bytes!("data/overlayfs-1.6.db.gz");
/// The layer's digest, which is also the name of the snapshot made from it.
const LAYER: &str = "sha256:c0f596b17711a7dc975e9a8cac636f668fa66788181052818bd748ce2959c934";
const BLOBS: [(&str, u64); 4] = [
    ("05e7658cc8315d6139f357c43ff59eced54c25c87fc058f6f9ac586e5b58c9eb", 173),
    ("206f83e52b1e95d5a0dbf60d39ac6505f0ba8db97d0e21841ee2f94d760d4088", 415),
    ("c0f596b17711a7dc975e9a8cac636f668fa66788181052818bd748ce2959c934", 10240),
    ("cd00e292c5970d3c5e2f0ffa5171e555bc46bfc4faddfb4a418b6840b86e79a3", 100),
];

/// The plain driver under the name of one of containerd's.
struct Overlayfs(DirectoryDriver);

impl SnapshotDriver for Overlayfs {
    fn name(&self) -> &'static str {
        "overlayfs"
    }
    fn capabilities(&self) -> Vec<String> {
        self.0.capabilities()
    }
    fn root(&self) -> &Path {
        self.0.root()
    }
    fn create(&self, new: &DriverSnapshot) -> Result<()> {
        self.0.create(new)
    }
    fn mounts(&self, of: &DriverSnapshot) -> Result<Vec<Mount>> {
        self.0.mounts(of)
    }
    fn commit(&self, active: &DriverSnapshot, new_parents: &[SnapshotId]) -> Result<()> {
        self.0.commit(active, new_parents)
    }
    fn retire(&self, id: SnapshotId) -> Result<()> {
        self.0.retire(id)
    }
    fn purge(&self) -> Result<()> {
        self.0.purge()
    }
    fn usage(&self, id: SnapshotId) -> Result<SnapshotUsage> {
        self.0.usage(id)
    }
    fn ids(&self) -> Result<Vec<SnapshotId>> {
        self.0.ids()
    }
    fn sync(&self, id: SnapshotId) -> Result<()> {
        self.0.sync(id)
    }
}

/// A root as containerd left it.
struct Left {
    dir: tempfile::TempDir,
}

fn unpacked(recorded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(recorded).read_to_end(&mut bytes).unwrap();
    bytes
}

impl Left {
    fn new() -> Left {
        let left = Left { dir: tempfile::tempdir().unwrap() };
        for number in 1..=4 {
            fs::create_dir_all(left.overlayfs().join("snapshots").join(number.to_string())).unwrap();
        }
        fs::create_dir_all(left.blob("any").parent().unwrap()).unwrap();
        fs::create_dir_all(left.meta().parent().unwrap()).unwrap();
        fs::create_dir_all(left.path("state")).unwrap();
        for (hex, size) in BLOBS {
            fs::write(left.blob(hex), vec![0; usize::try_from(size).unwrap()]).unwrap();
        }
        fs::write(left.meta(), unpacked(META)).unwrap();
        fs::write(left.overlayfs().join("metadata.db"), unpacked(OVERLAYFS)).unwrap();
        left
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn meta(&self) -> PathBuf {
        self.path("io.containerd.metadata.v1.bolt/meta.db")
    }

    fn overlayfs(&self) -> PathBuf {
        self.path("io.containerd.snapshotter.v1.overlayfs")
    }

    fn blob(&self, hex: &str) -> PathBuf {
        self.path("io.containerd.content.v1.content/blobs/sha256").join(hex)
    }

    /// Puts the mount manager's database where it is.
    fn keep_mounts(&self, bytes: &[u8]) {
        let directory = self.path("state/io.containerd.mount-manager.v1.bolt");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("mounts.db"), bytes).unwrap();
    }

    fn root(&self) -> Root {
        Root {
            meta: self.meta(),
            content: self.path("io.containerd.content.v1.content"),
            state: self.path("state"),
            snapshotters: vec![Snapshotter { name: "overlayfs".into(), root: self.overlayfs() }],
            store: self.path("gantry/store.db"),
        }
    }

    async fn take(&self, how: Takeover) -> Outcome {
        take_over(self.root(), how, BTreeSet::new()).await.unwrap()
    }

    async fn taken(&self) -> Report {
        match self.take(Takeover::On).await {
            Outcome::Taken(_, Some(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    async fn open(&self) -> Metadata {
        let driver = Overlayfs(DirectoryDriver::new(self.overlayfs().join("snapshots")));
        let content = gantry_testkit::FakeContent::default();
        let parts = MetadataParts {
            path: self.root().store,
            content: Arc::new(content) as Arc<dyn ContentStore>,
            drivers: vec![Arc::new(driver)],
            events: Arc::new(Ear::default()) as Arc<dyn EventPublisher>,
        };
        Metadata::open(MetadataConfig::default(), parts).await.unwrap()
    }

    /// Lets containerd's database go on by one transaction, as a containerd that is started does.
    fn change(&self) {
        const PAGE: usize = 4096;
        let mut bytes = fs::read(self.meta()).unwrap();
        let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (first, second) = (number(&bytes, 16 + 48), number(&bytes, PAGE + 16 + 48));
        let (from, to) = if first > second { (0, PAGE) } else { (PAGE, 0) };
        let mut meta = bytes[from + 16..from + 16 + 64].to_vec();
        meta[48..56].copy_from_slice(&(first.max(second) + 1).to_le_bytes());
        let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        meta[56..].copy_from_slice(&sum.to_le_bytes());
        bytes[to + 16..to + 16 + 64].copy_from_slice(&meta);
        fs::write(self.meta(), bytes).unwrap();
    }
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_containerd_left_is_there_under_its_names_and_numbers() {
    let left = Left::new();
    let before = (fs::read(left.meta()).unwrap(), fs::read(left.overlayfs().join("metadata.db")).unwrap());
    let report = left.taken().await;
    assert_eq!(report.problems, []);
    assert_eq!(report.schema, "v1.3");
    let text = report.to_string();
    assert!(
        text.contains(
            "namespace alpha: 1 container, 41 images, 4 blobs, 1 lease, 2 snapshots of overlayfs\n"
        ),
        "{text}"
    );
    let metadata = left.open().await;
    assert_eq!(metadata.recovery(), &gantry_metadata::Recovery::default());
    let namespaces = metadata.namespaces().list(&cx("alpha")).await.unwrap();
    let found: Vec<_> = namespaces.iter().map(|found| (found.name.as_str(), found.labels.clone())).collect();
    assert_eq!(found, [("alpha", labels(&[("team", "alpha")])), ("beta", labels(&[("team", "beta")]))]);
    for name in ["alpha", "beta"] {
        let cx = cx(name);
        let images = all(metadata.images().list(&cx, &[]).await.unwrap()).await;
        assert_eq!(images.len(), 41);
        assert!(images.iter().all(|image| image.target.size_bytes == 415 && image.created_at > UNIX_EPOCH));
        let container = metadata.containers().get(&cx, &format!("web-{name}")).await.unwrap();
        assert_eq!(container.runtime.name, "io.containerd.runc.v2");
        assert_eq!(
            (container.snapshotter.as_str(), container.snapshot_key.as_str()),
            ("overlayfs", container.id.as_str())
        );
        let spec = container.spec.unwrap();
        assert_eq!(spec.type_url, "types.containerd.io/opencontainers/runtime-spec/1/Spec");
        assert!(spec.value.starts_with(b"{\"ociVersion\""));
        let lease = LeaseId::parse(format!("lease-{name}")).unwrap();
        let leases = metadata.leases().list(&cx, &[]).await.unwrap();
        assert_eq!(leases[0].id, lease);
        assert_eq!(leases[0].labels["color"], "blue");
        assert!(leases[0].labels.contains_key("containerd.io/gc.expire"));
        let snapshotter = metadata.snapshotter("overlayfs").unwrap();
        let snapshots = all(snapshotter.list(&cx, &[]).await.unwrap()).await;
        let seen: Vec<_> = snapshots.iter().map(|info| (info.name.as_str(), info.kind)).collect();
        assert_eq!(seen, [(LAYER, SnapshotKind::Committed), (container.id.as_str(), SnapshotKind::Active)]);
        assert_eq!(snapshots[1].parent, Some(key(LAYER)));
        // Beta's second directory is containerd's fourth, whatever number its record has here.
        let (own, parent) = if name == "alpha" { (2, 1) } else { (4, 3) };
        let mounts = snapshotter.mounts(&cx, &key(container.id.as_str())).await.unwrap();
        assert!(mounts[0].source.ends_with(&format!("/snapshots/{own}")), "{mounts:?}");
        assert_eq!(mounts[0].options, ["active".to_owned(), format!("parent={parent}")]);
    }
    // Ours are numbered far above, so that containerd's own next ones do not meet them.
    let new = NewSnapshot { key: key("new"), parent: Some(key(LAYER)), labels: Labels::new() };
    let snapshotter = metadata.snapshotter("overlayfs").unwrap();
    let mounts = snapshotter.prepare(&cx("beta"), new).await.unwrap();
    assert!(mounts[0].source.ends_with("/snapshots/1000001"), "{mounts:?}");
    assert_eq!(mounts[0].options[1], "parent=3");
    snapshotter.remove(&cx("beta"), &key("web-beta")).await.unwrap();
    assert!(!left.overlayfs().join("snapshots/4").exists());
    assert!(left.overlayfs().join("snapshots/2").exists());
    metadata.close(Duration::from_secs(5)).await.unwrap();
    let after = (fs::read(left.meta()).unwrap(), fs::read(left.overlayfs().join("metadata.db")).unwrap());
    assert!(before == after, "containerd's files are as they were");
}

#[tokio::test]
async fn a_check_refuses_with_the_way_on_and_writes_nothing() {
    let left = Left::new();
    let refused = refusal(left.take(Takeover::Check).await);
    assert_eq!(refused.arguments, ["--takeover=on"]);
    assert!(
        refused.reason.contains("meta.db") && refused.reason.contains("--takeover=on"),
        "{}",
        refused.reason
    );
    assert_eq!(refused.report.unwrap().namespaces["beta"].images, 41);
    assert!(!left.path("gantry").exists());
    fs::remove_file(left.meta()).unwrap();
    assert!(matches!(left.take(Takeover::Check).await, Outcome::Nothing));
}

#[tokio::test]
async fn a_second_start_needs_no_word_until_containerd_wrote_again() {
    let left = Left::new();
    left.taken().await;
    for how in [Takeover::Check, Takeover::On, Takeover::Again] {
        assert!(matches!(left.take(how).await, Outcome::Taken(_, None)), "{how:?}");
    }
    let metadata = left.open().await;
    metadata.images().delete(&cx("alpha"), "docker.io/library/t:tag7", Default::default()).await.unwrap();
    metadata.close(Duration::from_secs(5)).await.unwrap();
    drop(metadata);
    left.change();
    for how in [Takeover::Check, Takeover::On] {
        let refused = refusal(left.take(how).await);
        assert_eq!(refused.arguments, ["--takeover=again"]);
        assert!(refused.reason.contains("transaction"), "{}", refused.reason);
    }
    assert!(matches!(left.take(Takeover::Again).await, Outcome::Taken(_, Some(_))));
    let metadata = left.open().await;
    metadata.images().get(&cx("alpha"), "docker.io/library/t:tag7").await.unwrap();
    let names = fs::read_dir(left.path("gantry")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains(".before-")).count(), 1, "kept aside");
    assert!(matches!(left.take(Takeover::Check).await, Outcome::Taken(_, None)));
    metadata.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn records_of_our_own_that_were_there_before_are_not_replaced_unasked() {
    let left = Left::new();
    let meta = left.path("meta.db");
    fs::rename(left.meta(), &meta).unwrap();
    fs::rename(left.overlayfs(), left.path("away")).unwrap();
    fs::create_dir_all(left.overlayfs().join("snapshots")).unwrap();
    left.open().await.close(Duration::from_secs(5)).await.unwrap();
    fs::rename(&meta, left.meta()).unwrap();
    for how in [Takeover::Check, Takeover::On] {
        let refused = refusal(left.take(how).await);
        assert!(refused.reason.contains("records of its own"), "{}", refused.reason);
        assert_eq!(refused.arguments[0], "--takeover=again");
    }
}

#[tokio::test]
async fn what_is_not_on_disk_is_left_out_or_marked() {
    let left = Left::new();
    fs::remove_file(left.blob(BLOBS[0].0)).unwrap();
    fs::write(left.blob(BLOBS[2].0), "short").unwrap();
    fs::remove_dir(left.overlayfs().join("snapshots/3")).unwrap();
    fs::create_dir(left.overlayfs().join("snapshots/77")).unwrap();
    let report = left.taken().await;
    let with =
        |wanted: Consequence| report.problems.iter().filter(|found| found.consequence == wanted).count();
    assert_eq!(
        (with(Consequence::LeftOut), with(Consequence::Marked), with(Consequence::Told)),
        (4, 1, 1),
        "{report}"
    );
    let metadata = left.open().await;
    let left_over = all(metadata.content().list(&cx("alpha"), &[]).await.unwrap()).await;
    assert_eq!(left_over.len(), 2);
    let lost = &metadata.recovery().missing;
    assert_eq!(lost.iter().map(|name| name.key.as_str()).collect::<Vec<_>>(), [LAYER]);
    assert_eq!(&metadata.recovery().suspect, lost, "marked to be made anew");
    assert_eq!(metadata.recovery().orphans, 1);
    metadata.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_snapshotter_that_is_not_there_is_refused_by_its_name() {
    let left = Left::new();
    let root = Root { snapshotters: Vec::new(), ..left.root() };
    let refused = refusal(take_over(root.clone(), Takeover::On, BTreeSet::new()).await.unwrap());
    assert_eq!(refused.arguments, ["--takeover=on", "--takeover-leave-out=overlayfs"]);
    let text = refused.report.unwrap().to_string();
    assert!(text.contains("4 snapshots of overlayfs (namespaces alpha, beta)"), "{text}");
    assert!(!left.path("gantry/store.db").exists());
    let without = BTreeSet::from(["overlayfs".to_owned()]);
    let Outcome::Taken(_, Some(report)) = take_over(root, Takeover::On, without).await.unwrap() else {
        panic!("not taken over")
    };
    assert!(report.namespaces["alpha"].snapshots.is_empty());
    assert_eq!(report.namespaces["alpha"].containers, 1);
}

#[tokio::test]
async fn a_snapshotters_lost_database_is_damage() {
    let left = Left::new();
    fs::remove_file(left.overlayfs().join("metadata.db")).unwrap();
    let refused = refusal(left.take(Takeover::On).await);
    assert_eq!(refused.arguments, ["--takeover=on", "--takeover-leave-out=damaged"]);
    fs::write(left.overlayfs().join("metadata.db"), vec![0; 8192]).unwrap();
    let error = take_over(left.root(), Takeover::On, BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.to_string().contains("metadata.db"), "{error}");
    assert!(!left.path("gantry/store.db").exists());
}

#[tokio::test]
async fn a_crash_before_the_last_step_leaves_nothing_of_ours() {
    let left = Left::new();
    fs::create_dir(left.path("gantry")).unwrap();
    // As if the machine stopped with the database filled and noted, but not renamed.
    fs::write(left.path("gantry/takeover.db"), "half").unwrap();
    fs::write(left.path("gantry/takeover.db-wal"), "half").unwrap();
    fs::write(left.path("gantry/takeover.json"), "{}").unwrap();
    assert_eq!(refusal(left.take(Takeover::Check).await).arguments, ["--takeover=on"]);
    left.taken().await;
    let mut names: Vec<_> =
        fs::read_dir(left.path("gantry")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["store.db", "store.db.lock", "takeover.json"]);
}

#[tokio::test]
async fn a_living_containerd_is_refused_and_a_later_one_waits() {
    let left = Left::new();
    let held = fs::File::open(left.meta()).unwrap();
    held.lock().unwrap();
    let error = take_over(left.root(), Takeover::On, BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    let taken = left.take(Takeover::On).await;
    let file = fs::File::open(left.meta()).unwrap();
    assert!(file.try_lock().is_err(), "containerd would wait for this lock");
    drop(taken);
    file.try_lock().unwrap();
}

#[tokio::test]
async fn files_with_changed_bytes_are_taken_over_whole_or_not_at_all() {
    use rand::{Rng as _, SeedableRng as _};
    let left = Left::new();
    let (meta, own) = (unpacked(META), unpacked(OVERLAYFS));
    let mut random = rand::rngs::StdRng::seed_from_u64(0x7A4E);
    let (mut refused, mut failed, mut taken) = (0, 0, 0_u32);
    let cases = std::env::var("GANTRY_TAKEOVER_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    for case in 0..cases {
        let mut files = [meta.clone(), own.clone()];
        // Single bits in places that pages use: mostly lengths, kinds, times, names.
        for _ in 0..random.random_range(1..4) {
            let file = &mut files[usize::from(random.random_bool(0.4))];
            let used: Vec<usize> = (8192..file.len()).filter(|at| file[*at] != 0).collect();
            let at = used[random.random_range(0..used.len())];
            file[at] ^= 1 << random.random_range(0..8);
        }
        fs::write(left.meta(), &files[0]).unwrap();
        fs::write(left.overlayfs().join("metadata.db"), &files[1]).unwrap();
        match take_over(left.root(), Takeover::On, BTreeSet::new()).await {
            Ok(Outcome::Refused(_)) => refused += 1,
            Err(error) => {
                let kinds = [ErrorKind::DataLoss, ErrorKind::FailedPrecondition];
                assert!(kinds.contains(&error.kind()), "case {case}: {error}");
                failed += 1;
            }
            Ok(Outcome::Taken(_, Some(_))) => taken += 1,
            Ok(other) => panic!("case {case}: {other:?}"),
        }
        assert_eq!(
            left.path("gantry/store.db").exists(),
            left.path("gantry/takeover.json").exists(),
            "case {case}"
        );
        assert!(!left.path("gantry/takeover.db").exists(), "case {case}");
        let _ = fs::remove_dir_all(left.path("gantry"));
    }
    assert!(refused > 0 && failed > 0 && taken > 0, "{refused} {failed} {taken}");
}

/// Written with bbolt: one record of each noun, where v1.1 and v1.4 of the schema keep it.
const LAYOUTS: [(&str, &[u8], usize); 2] = [
    ("v1.1", include_bytes!("data/meta-v1.1.db.gz"), 1),
    ("v1.4", include_bytes!("data/meta-v1.4.db.gz"), 2),
];

#[tokio::test]
async fn older_and_newer_layouts_are_read_alike() {
    for (schema, recorded, ingests) in LAYOUTS {
        let left = Left::new();
        fs::write(left.meta(), unpacked(recorded)).unwrap();
        let report = left.taken().await;
        assert_eq!((report.schema.as_str(), report.namespaces["one"].ingests), (schema, ingests));
        let metadata = left.open().await;
        let namespaces = metadata.namespaces().list(&cx("one")).await.unwrap();
        assert_eq!(
            namespaces.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(),
            ["one", "three", "two"]
        );
        let created = UNIX_EPOCH + Duration::new(1_580_695_506, 789);
        let updated = UNIX_EPOCH - Duration::new(2_524_525_201, 0) + Duration::from_nanos(1);
        let any = |kind: &str, value: &'static str| Some(gantry_core::Any::new(kind, value));

        let image = metadata.images().get(&cx("one"), "name").await.unwrap();
        assert_eq!((image.created_at, image.updated_at), (created, updated));
        assert_eq!((image.target.digest.as_str(), image.target.size_bytes), (LAYER, 77));
        assert_eq!(
            (image.target.media_type.as_str(), &image.target.annotations["org.example"]),
            ("m/t", &"note".into())
        );
        assert_eq!(image.labels, labels(&[("containerd.io/gc.ref.image", "x")]));

        let container = metadata.containers().get(&cx("one"), "web").await.unwrap();
        assert_eq!((container.created_at, container.updated_at), (created, updated));
        assert_eq!((container.spec, container.runtime.options), (any("s", "spec"), any("o", "options")));
        assert_eq!((container.sandbox.as_str(), container.snapshot_key.as_str()), ("pod", "k"));
        assert_eq!(container.extensions.get("ext"), any("e", "x").as_ref());

        let sandbox = metadata.sandboxes().get(&cx("two"), "pod").await.unwrap();
        assert_eq!((sandbox.created_at, sandbox.updated_at), (created, updated));
        assert_eq!((sandbox.spec, sandbox.runtime.options), (any("spec/type", "spec"), any("o", "options")));
        assert_eq!((sandbox.sandboxer.as_str(), &sandbox.labels["pod"]), ("podsandbox", &"web".into()));
        assert_eq!(sandbox.extensions.get("ext"), any("e", "x").as_ref());

        let lease = LeaseId::parse("all").unwrap();
        let kept = metadata.leases().resources(&cx("one"), &lease).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|kept| (kept.kind.as_str(), kept.id.as_str())).collect();
        let wanted =
            [("content", LAYER), ("images", "name"), ("ingests", "leased ref"), ("snapshots/overlayfs", "k")];
        assert_eq!(kept, wanted);
        let found = metadata.leases().list(&cx("one"), &[]).await.unwrap();
        assert_eq!(
            (found[0].created_at, found[0].labels.clone()),
            (created, labels(&[("containerd.io/gc.flat", "yes")]))
        );
        metadata.close(Duration::from_secs(5)).await.unwrap();
    }
}

#[tokio::test]
async fn a_schema_that_is_not_known_is_refused_by_its_name() {
    let left = Left::new();
    // The version is a value of one byte: a signed number, so 10 is 5.
    let mut bytes = unpacked(META);
    let key = b"version";
    let places: Vec<usize> = (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(key)).collect();
    for at in places {
        bytes[at + key.len()] = 10;
    }
    fs::write(left.meta(), bytes).unwrap();
    let error = take_over(left.root(), Takeover::On, BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("v1.5"), "{error}");
}

/// Written with bbolt: one list of mounts that is mounted, and one whose mounting did not end.
const MOUNTS: &[u8] = include_bytes!("data/mounts.db.gz");

#[tokio::test]
async fn what_is_mounted_is_known_under_its_name_and_number() {
    let left = Left::new();
    left.keep_mounts(&unpacked(MOUNTS));
    let report = left.taken().await;
    assert_eq!(report.problems, []);
    assert_eq!((report.namespaces["alpha"].mounts, report.namespaces["beta"].mounts), (1, 0));
    let metadata = left.open().await;
    metadata.mounts().forget_lost().await.unwrap();
    let record = metadata.mounts().get(&cx("alpha"), "layers").await.unwrap();
    assert_eq!((record.id, record.finished, record.pinned), (7, true, false));
    assert_eq!(record.lease, Some(LeaseId::parse("lease-alpha").unwrap()));
    let activation = record.activation;
    assert_eq!(activation.labels, labels(&[("containerd.io/gc.bref.container", "web-alpha")]));
    let active: Vec<_> = activation
        .active
        .iter()
        .map(|active| (active.mount.kind.as_str(), active.mount_point.as_str()))
        .collect();
    assert_eq!(active, [("erofs", "/run/t/7/0"), ("erofs", "/run/t/7/1")]);
    assert_eq!(activation.system[0].options, ["ro", "lowerdir=/run/t/7/1:/run/t/7/0"]);
    // The next one's directory is a new one.
    let next = metadata.mounts().begin(&cx("beta"), "next", Labels::new(), false).await.unwrap();
    assert!(next > 7);
    metadata.close(Duration::from_secs(5)).await.unwrap();

    let left = Left::new();
    left.keep_mounts(b"no database");
    let refused = refusal(left.take(Takeover::On).await);
    assert_eq!(refused.arguments, ["--takeover=on", "--takeover-leave-out=mounts"]);
}
