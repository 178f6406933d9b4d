//! Layers through the differ: from content to mounts, and back.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types, reason = "tests mount and unmount")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use gantry_archive::{Compression, Compressor};
use gantry_core::content::{CommitContent, ContentStore, OpenWriter};
use gantry_core::diff::{ApplyDiff, CompareDiff, DiffApplier, DiffComparer};
use gantry_core::mount::Mount;
use gantry_core::wire_names::LABEL_UNCOMPRESSED;
use gantry_core::{Context, Descriptor, Digest, ErrorKind, IngestRef};
use gantry_diff::{StreamProcessor, WalkingDiffer};
use gantry_testkit::{FakeContent, Tar, root};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Everything on a file system of its own, that an overlay can use.
struct Place {
    dir: PathBuf,
    content: Arc<FakeContent>,
    differ: WalkingDiffer,
}

impl Place {
    fn new() -> Place {
        let dir = PathBuf::from("/run/differ");
        fs::create_dir_all(&dir).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", "/run/differ"]);
        let content = Arc::new(FakeContent::default());
        let store = Arc::clone(&content) as Arc<dyn ContentStore>;
        let differ = WalkingDiffer::new(store, dir.join("tmpmounts"));
        Place { dir, content, differ }
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn make(&self, name: &str) -> String {
        fs::create_dir_all(self.dir.join(name)).unwrap();
        self.path(name)
    }

    async fn layer(&self, media_type: &str, archive: &[u8], compression: Compression) -> Descriptor {
        let mut packed = Compressor::new(Vec::new(), compression).unwrap();
        std::io::Write::write_all(&mut packed, archive).unwrap();
        let packed = packed.finish().unwrap();
        let open =
            OpenWriter { reference: IngestRef::parse("layer").unwrap(), total_bytes: 0, expected: None };
        let mut writer = self.content.writer(&Context::background(), open).await.unwrap();
        let size = packed.len() as i64;
        writer.write(Bytes::from(packed)).await.unwrap();
        let digest = writer.digest().await.unwrap();
        if let Err(error) = writer.commit(CommitContent::default()).await {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
        Descriptor::new(media_type, digest, size)
    }

    async fn apply(&self, layer: &Descriptor, mounts: &[Mount]) -> gantry_core::Result<Descriptor> {
        self.differ
            .apply(&Context::background(), layer, mounts, ApplyDiff { sync_fs: true, ..ApplyDiff::default() })
            .await
    }

    /// What a mount of layers shows.
    fn seen(&self, mounts: &[Mount]) -> BTreeMap<String, String> {
        let at = PathBuf::from(self.make("seen"));
        gantry_mount::mount_all(mounts, &at).unwrap();
        let seen = tree(&at);
        gantry_mount::unmount_all(&at, gantry_mount::Busy::Wait).unwrap();
        seen
    }

    fn assert_nothing_left(&self) {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!table.contains("tmpmounts"), "{table}");
        let left = fs::read_dir(self.dir.join("tmpmounts")).map_or(0, Iterator::count);
        assert_eq!(left, 0);
        assert_eq!(self.content.ingests(), 0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        run("umount", &["-l", "/run/differ"]);
    }
}

fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            let link = fs::read_link(&path).map(|link| link.display().to_string()).unwrap_or_default();
            let time = if meta.is_dir() { 0 } else { meta.mtime() };
            let line = format!(
                "{:o} {}:{} {time} {} {content}{link}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev()
            );
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), line);
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

fn bind(path: &str) -> Vec<Mount> {
    let options = ["rbind", "rw"].map(str::to_owned).to_vec();
    vec![Mount { kind: "bind".into(), source: path.into(), target: String::new(), options }]
}

fn overlay(options: &[String]) -> Vec<Mount> {
    vec![Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: options.to_vec(),
    }]
}

fn base() -> Vec<u8> {
    Tar::new()
        .dir("usr", 0o755)
        .dir("usr/lib", 0o751)
        .file("usr/lib/libc", 0o755, "libc")
        .symlink("lib", "usr/lib")
        .owner(7, 8)
        .dir("srv", 0o2770)
        .file("srv/a", 0o640, "a")
        .file("srv/b", 0o640, "b")
        .finish()
}

fn second() -> Vec<u8> {
    Tar::new()
        .file("lib/libm", 0o755, "libm")
        .file("srv/c", 0o600, "c")
        .whiteout("srv/a")
        .hardlink("srv/b2", "srv/b")
        .file("new/file", 0o644, "new")
        .opaque("usr/share")
        .finish()
}

fn play(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(story);
}

#[test]
fn every_kind_of_layer_is_applied_and_its_diff_id_told() {
    root!();
    play(async {
        let place = Place::new();
        let archive = base();
        let sum = gantry_testkit::sha256(&archive).to_string();
        for (index, (media_type, compression)) in [
            (PLAIN, Compression::None),
            (GZIP, Compression::Gzip),
            (ZSTD, Compression::Zstd),
            (DOCKER, Compression::Gzip),
            (DOCKER, Compression::None),
            (DOCKER_GZIP, Compression::Gzip),
            (GZIP, Compression::Zstd),
        ]
        .into_iter()
        .enumerate()
        {
            let layer = place.layer(media_type, &archive, compression).await;
            let root = place.make(&format!("root{index}"));
            let done = place.apply(&layer, &bind(&root)).await.unwrap();
            assert_eq!((done.media_type.as_str(), done.size_bytes), (PLAIN, archive.len() as i64));
            assert!(sum.contains(done.digest.hex()), "{sum} {}", done.digest);
            assert_eq!(fs::read_to_string(format!("{root}/usr/lib/libc")).unwrap(), "libc");
        }
        place.assert_nothing_left();
    });
}

#[test]
fn what_cannot_be_applied_is_refused_by_kind() {
    root!();
    play(async {
        let place = Place::new();
        let root = place.make("root");
        let good = place.layer(GZIP, &base(), Compression::Gzip).await;
        for unknown in [
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "",
        ] {
            let layer = Descriptor { media_type: unknown.into(), ..good.clone() };
            assert_eq!(place.apply(&layer, &bind(&root)).await.unwrap_err().kind(), ErrorKind::Unimplemented);
        }
        let missing = Descriptor::new(GZIP, Digest::sha256([7u8; 32]), 1);
        assert_eq!(place.apply(&missing, &bind(&root)).await.unwrap_err().kind(), ErrorKind::NotFound);
        for (media_type, compression) in
            [(GZIP, Compression::Gzip), (PLAIN, Compression::Gzip), (GZIP, Compression::None)]
        {
            let broken = if media_type == PLAIN { base() } else { vec![0x5a; 4096] };
            let layer = place.layer(media_type, &broken, compression).await;
            let error = place.apply(&layer, &bind(&root)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        let token = tokio_util::sync::CancellationToken::new();
        token.cancel();
        let cx = Context::background().with_cancellation(token);
        let error = place.differ.apply(&cx, &good, &bind(&root), ApplyDiff::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Canceled);
        place.assert_nothing_left();
    });
}

#[test]
fn an_overlay_written_directly_equals_one_that_was_mounted() {
    root!();
    play(async {
        let place = Place::new();
        let lower = place.make("lower");
        place.apply(&place.layer(PLAIN, &base(), Compression::None).await, &bind(&lower)).await.unwrap();
        let layer = place.layer(GZIP, &second(), Compression::Gzip).await;
        let mut trees = Vec::new();
        // The last option is one that this differ leaves to a mount.
        for (name, extra) in [("direct", "index=off"), ("mounted", "redirect_dir=on")] {
            let (upper, work) = (place.make(&format!("{name}-upper")), place.make(&format!("{name}-work")));
            let options = [
                format!("workdir={work}"),
                format!("upperdir={upper}"),
                format!("lowerdir={lower}"),
                extra.to_owned(),
            ];
            let mounts = overlay(&options);
            place.apply(&layer, &mounts).await.unwrap();
            trees.push(place.seen(&mounts));
        }
        assert_eq!(trees[0], trees[1]);
        assert!(!trees[0].contains_key("srv/a") && trees[0].contains_key("usr/lib/libm"));
        place.assert_nothing_left();
    });
}

#[test]
fn a_directory_renamed_in_a_lower_layer_is_followed_by_a_mount() {
    root!();
    play(async {
        let place = Place::new();
        let (lower, middle, work) = (place.make("lower"), place.make("middle"), place.make("work"));
        place.apply(&place.layer(PLAIN, &base(), Compression::None).await, &bind(&lower)).await.unwrap();
        let at = PathBuf::from(place.make("at"));
        let options = ["redirect_dir=on", "metacopy=off"].map(str::to_owned).to_vec();
        let dirs = [format!("workdir={work}"), format!("upperdir={middle}"), format!("lowerdir={lower}")];
        let mounts = overlay(&[dirs.to_vec(), options].concat());
        gantry_mount::mount_all(&mounts, &at).unwrap();
        fs::rename(at.join("srv"), at.join("moved")).unwrap();
        gantry_mount::unmount_all(&at, gantry_mount::Busy::Wait).unwrap();
        let (upper, work) = (place.make("upper"), place.make("work2"));
        let options =
            [format!("workdir={work}"), format!("upperdir={upper}"), format!("lowerdir={middle}:{lower}")];
        let archive =
            Tar::new().file("early", 0o644, "e").file("moved/new", 0o644, "n").whiteout("moved/b").finish();
        let mounts = overlay(&options);
        let done =
            place.apply(&place.layer(PLAIN, &archive, Compression::None).await, &mounts).await.unwrap();
        assert_eq!(done.size_bytes, archive.len() as i64);
        let seen = place.seen(&mounts);
        assert!(seen.contains_key("moved/a") && seen.contains_key("moved/new") && seen.contains_key("early"));
        assert!(!seen.contains_key("moved/b") && !seen.contains_key("srv"));
        place.assert_nothing_left();
    });
}

#[test]
fn a_computed_layer_brings_the_change_back() {
    root!();
    play(async {
        let place = Place::new();
        let lower = place.make("lower");
        place.apply(&place.layer(PLAIN, &base(), Compression::None).await, &bind(&lower)).await.unwrap();
        let (upper, work) = (place.make("upper"), place.make("work"));
        let active =
            overlay(&[format!("workdir={work}"), format!("upperdir={upper}"), format!("lowerdir={lower}")]);
        let at = PathBuf::from(place.make("at"));
        gantry_mount::mount_all(&active, &at).unwrap();
        fs::write(at.join("srv/a"), "changed").unwrap();
        fs::remove_file(at.join("srv/b")).unwrap();
        fs::create_dir(at.join("made")).unwrap();
        fs::write(at.join("made/file"), "made").unwrap();
        fs::set_permissions(at.join("made/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        gantry_mount::unmount_all(&at, gantry_mount::Busy::Wait).unwrap();
        let wanted = place.seen(&active);
        let cx = Context::background();
        let nothing = place.make("nothing");
        // Read from the upper directory; from a view of it; from mounts that only a walk compares.
        let view = overlay(&[format!("lowerdir={upper}:{lower}")]);
        let odd = overlay(&[format!("lowerdir={upper}:{lower}:{nothing}"), "xino=on".to_owned()]);
        for (index, changed) in [&active, &view, &odd].into_iter().enumerate() {
            for media_type in ["", PLAIN, ZSTD] {
                let how = CompareDiff { media_type: media_type.into(), ..CompareDiff::default() };
                let layer = place.differ.compare(&cx, &bind(&lower), changed, how).await.unwrap();
                assert_eq!(layer.media_type, if media_type.is_empty() { GZIP } else { media_type });
                let info = place.content.info(&cx, &layer.digest).await.unwrap();
                assert_eq!(info.size_bytes as i64, layer.size_bytes);
                let copy = place.make(&format!("copy{index}{}", media_type.len()));
                place
                    .apply(&place.layer(PLAIN, &base(), Compression::None).await, &bind(&copy))
                    .await
                    .unwrap();
                let done = place.apply(&layer, &bind(&copy)).await.unwrap();
                let label = info.labels.get(LABEL_UNCOMPRESSED).cloned();
                assert_eq!(label, (media_type != PLAIN).then(|| done.digest.to_string()));
                assert_eq!(tree(Path::new(&copy)), wanted, "{index} {media_type}");
            }
        }
        let first = place.differ.compare(&cx, &[], &bind(&lower), CompareDiff::default()).await.unwrap();
        let copy = place.make("first");
        place.apply(&first, &bind(&copy)).await.unwrap();
        assert_eq!(tree(Path::new(&copy)), tree(Path::new(&lower)));
        place.assert_nothing_left();
    });
}

#[test]
fn a_comparison_that_fails_leaves_only_what_has_a_name() {
    root!();
    play(async {
        let place = Place::new();
        let cx = Context::background();
        let missing = bind(&place.path("missing"));
        let lower = bind(&place.make("lower"));
        let how = CompareDiff { media_type: "application/octet-stream".into(), ..CompareDiff::default() };
        let error = place.differ.compare(&cx, &lower, &lower, how).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unimplemented);
        place.differ.compare(&cx, &lower, &missing, CompareDiff::default()).await.unwrap_err();
        place.assert_nothing_left();
        let named = CompareDiff { reference: "mine".into(), ..CompareDiff::default() };
        place.differ.compare(&cx, &lower, &missing, named.clone()).await.unwrap_err();
        let reference = IngestRef::parse("mine").unwrap();
        assert!(place.content.status(&cx, &reference).await.is_ok());
        // The same ref can be used again at once, from its start.
        place.differ.compare(&cx, &lower, &lower, named).await.unwrap();
        place.assert_nothing_left();
    });
}

#[test]
fn layers_of_other_types_go_through_programs() {
    root!();
    play(async {
        let place = Place::new();
        let script = |id: &str, accepts: &str, returns: &str, script: &str| StreamProcessor {
            id: id.into(),
            accepts: vec![accepts.into()],
            returns: returns.into(),
            path: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec!["SHIFT=a-z".into()],
        };
        let swap = "tr a-zA-Z n-za-mN-ZA-M";
        let store = Arc::clone(&place.content) as Arc<dyn ContentStore>;
        let differ = WalkingDiffer::new(store, place.dir.join("tmpmounts")).with_processors(vec![
            script("one", "twice", "once", swap),
            script("two", "once", GZIP, &format!("test $STREAM_PROCESSOR_MEDIATYPE = once && {swap}")),
            script("payload", "told", PLAIN, "cat $STREAM_PROCESSOR_PIPE >&2; exit 3"),
            script("stuck", "endless", PLAIN, "exec sleep 1000"),
        ]);
        let cx = Context::background();
        let root = place.make("root");
        let apply = async |cx: &Context, media_type: &str| {
            let layer = place.layer(media_type, &base(), Compression::Gzip).await;
            let payloads = [("payload".to_owned(), gantry_core::Any::new("type", "what it said".as_bytes()))];
            let how = ApplyDiff { payloads: payloads.into(), sync_fs: false };
            differ.apply(cx, &layer, &bind(&root), how).await
        };
        let done = apply(&cx, "twice").await.unwrap();
        assert_eq!(done.size_bytes as usize, base().len());
        let error = apply(&cx, "told").await.unwrap_err();
        assert!(
            error.to_string().contains("status 3") && error.to_string().contains("what it said"),
            "{error}"
        );
        let token = tokio_util::sync::CancellationToken::new();
        let leaving = cx.with_cancellation(token.clone());
        let (stopped, ()) = tokio::join!(apply(&leaving, "endless"), async {
            let runs = || gantry_testkit::eventually("the program runs", || sleeping().then_some(()));
            tokio::task::spawn_blocking(runs).await.unwrap();
            token.cancel();
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Canceled);
        assert!(!sleeping(), "the program was ended");
        place.assert_nothing_left();
    });
}

/// Whether a program of the test above sleeps.
fn sleeping() -> bool {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x001000\0"))
}
