//! Playing one story on the daemon under test and on its peer, and comparing what they print.

use std::path::PathBuf;

use gantry_testkit::{
    Background, Ctr, Daemon, DaemonOptions, Image, Output, Program, Pty, Registry, busybox_image, normalise,
    normalise_table,
};

/// The name under which stages import the busybox image.
pub(crate) const BUSYBOX: &str = "docker.io/library/busybox:latest";

/// Keeps the collection at start, a tenth of a second after it, from coming in between: stories import before it,
/// and what nothing refers to any more would be there or not. Collections after a deletion are as usual.
const LATE_COLLECTION: &str = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"";

/// A daemon, a client and a record of what the client printed.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) ctr: Ctr,
    transcript: Vec<String>,
}

impl Stage {
    /// A stage with a daemon that was started already.
    pub(crate) fn with(daemon: Daemon) -> Stage {
        let ctr = daemon.ctr();
        Stage { daemon, ctr, transcript: Vec::new() }
    }

    /// Runs `ctr` and records its normalised output, which must come with exit code 0.
    pub(crate) fn ok(&mut self, args: &[&str]) -> String {
        let output = self.any(args);
        assert_eq!(output.code, 0, "ctr {}:\n{}{}", args.join(" "), output.stdout, output.stderr);
        output.stdout
    }

    /// Runs `ctr` and records its normalised output and exit code, whatever they are.
    pub(crate) fn any(&mut self, args: &[&str]) -> Output {
        let output = self.ctr.run(args);
        self.record(
            args,
            &format!(
                "{}{}exit code {}",
                normalise_end(&output.stdout),
                normalise_end(&output.stderr),
                output.code
            ),
        );
        output
    }

    /// Runs `ctr`, which must succeed, and records the table it prints, without the columns that vary.
    pub(crate) fn table(&mut self, args: &[&str], varying: &[&str]) -> String {
        let printed = self.ctr.ok(args);
        self.record(args, &normalise_table(&printed, varying));
        printed
    }

    /// Runs `ctr`, which must succeed, and records only what `view` makes of its output.
    pub(crate) fn viewed(&mut self, args: &[&str], view: impl FnOnce(&str) -> String) -> String {
        let printed = self.ctr.ok(args);
        self.record(args, &view(&printed));
        printed
    }

    /// Starts `ctr` beside the story; nothing is recorded.
    pub(crate) fn spawn(&self, args: &[&str]) -> Background {
        self.ctr.spawn(args)
    }

    /// Starts `ctr` on a terminal; nothing is recorded.
    pub(crate) fn on_terminal(&self, args: &[&str]) -> Pty {
        self.ctr.on_terminal(args)
    }

    /// Adds a line of the story's own to the record.
    pub(crate) fn record(&mut self, args: &[&str], shown: &str) {
        let line = self.hide_own_paths(&format!("$ ctr {}\n{shown}\n", args.join(" ")));
        self.transcript.push(line);
    }

    fn hide_own_paths(&self, text: &str) -> String {
        text.replace(&*self.daemon.dir().to_string_lossy(), "<dir>")
    }

    /// Imports `image` as `name`, unpacked; nothing is recorded.
    pub(crate) fn import(&self, image: &Image, name: &str) -> PathBuf {
        let path = self.daemon.dir().join("import.tar");
        image.write_oci_archive(&path, name);
        self.ctr.ok(&["images", "import", &path.to_string_lossy()]);
        path
    }

    /// Imports busybox as [`BUSYBOX`].
    pub(crate) fn import_busybox(&self) {
        self.import(&busybox_image(), BUSYBOX);
    }

    /// Removes what is left in the namespace `default`, then fails if anything remains outside the database.
    pub(crate) fn close(&mut self) {
        self.daemon.clear("default");
        self.daemon.leftovers().assert_none();
    }
}

fn normalise_end(text: &str) -> String {
    let text = normalise(text);
    if text.is_empty() { text } else { text + "\n" }
}

/// Plays `story` on the daemon under test; if that is ours, plays it on containerd too, and both must have printed
/// the same.
pub(crate) fn same_on_both(story: fn(&mut Stage, &Registry)) {
    let registry = Registry::start();
    let under_test = Program::under_test();
    let is_peer = under_test.is_containerd();
    let ours = play(under_test, story, &registry);
    if !is_peer {
        let theirs = play(Program::containerd(), story, &registry);
        assert_same(&ours, &theirs);
    }
}

fn play(program: Program, story: fn(&mut Stage, &Registry), registry: &Registry) -> Vec<String> {
    let mut stage = Stage::with(DaemonOptions::new(program).config(LATE_COLLECTION).start());
    story(&mut stage, registry);
    stage.close();
    stage.daemon.stop();
    stage.transcript
}

fn assert_same(ours: &[String], theirs: &[String]) {
    let mut differences = String::new();
    for (own, other) in ours.iter().zip(theirs) {
        if own != other {
            differences.push_str(&format!("--- containerd\n{other}--- under test\n{own}\n"));
        }
    }
    assert!(differences.is_empty(), "the daemons differ:\n{differences}");
    assert_eq!(ours.len(), theirs.len(), "both play the same number of steps");
}
