//! What a check of a store finds.

use std::fmt;

use super::ObjectName;

/// How a store is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Reads every blob and compares its digest, and looks at every page of the database. False by default.
    pub deep: bool,
    /// Repairs what can be repaired without loss. False by default.
    pub repair: bool,
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $text:literal;)*) => {
        /// What is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Problem {
            $($(#[$doc])* $name,)*
        }

        impl Problem {
            /// Every problem.
            pub const ALL: &[Problem] = &[$(Problem::$name,)*];

            /// Its name for programs, for example `blob-missing`.
            pub fn code(self) -> &'static str {
                match self { $(Problem::$name => $code,)* }
            }

            /// The problem of this name.
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Problem::$name),)* _ => None }
            }

            /// Its name for people.
            pub fn as_str(self) -> &'static str {
                match self { $(Problem::$name => $text,)* }
            }
        }
    };
}

problems! {
    /// The database file is damaged.
    DatabaseDamaged => "database-damaged", "the database is damaged";
    /// An index of the database does not fit its table.
    IndexDamaged => "index-damaged", "an index of the database does not fit its table";
    /// A row belongs to a record that is not there.
    RowWithoutOwner => "row-without-owner", "rows of a record that is not there";
    /// A record's namespace is not there.
    NamespaceMissing => "namespace-missing", "records in a namespace that is not there";
    /// A record cannot be read.
    RecordUnreadable => "record-unreadable", "the record cannot be read";
    /// A blob has a record and no file.
    BlobMissing => "blob-missing", "the blob's file is not there";
    /// A blob's file has another length than its record.
    BlobSize => "blob-size", "the blob's record has the wrong size";
    /// A blob's bytes do not have its digest.
    BlobDamaged => "blob-damaged", "the blob's bytes do not have its digest";
    /// A blob's file has no record.
    BlobWithoutRecord => "blob-without-record", "a blob without record";
    /// A file among the blobs, or a directory among the writes in progress, that is neither.
    StrayFile => "stray-file", "a file that is no part of the store";
    /// A write in progress has a record and no data.
    IngestWithoutData => "ingest-without-data", "a write in progress without data";
    /// The data of a write in progress has no record.
    IngestWithoutRecord => "ingest-without-record", "the data of a write in progress without record";
    /// A snapshot has a record and no directory.
    SnapshotMissing => "snapshot-missing", "the snapshot's directory is not there";
    /// A snapshot's directory lacks a part.
    SnapshotIncomplete => "snapshot-incomplete", "the snapshot's directory is not whole";
    /// A snapshot's files may have been lost with the machine's memory; it is to be rebuilt before use.
    SnapshotSuspect => "snapshot-suspect", "the snapshot waits to be rebuilt";
    /// A snapshot's directory has no record.
    DirectoryWithoutRecord => "directory-without-record", "a snapshot directory without record";
    /// A snapshot's parent is not there, or can be no parent.
    ParentBroken => "parent-broken", "the snapshot's parent cannot be its parent";
    /// A container's snapshot is not there.
    ContainerWithoutSnapshot => "container-without-snapshot", "the container's snapshot is not there";
    /// An image's target is not there.
    ImageWithoutTarget => "image-without-target", "the image's target is not there";
    /// A part of the store could not be looked at.
    NotChecked => "not-checked", "this could not be checked";
}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is worth knowing, and no damage.
    Note,
    /// It was not asked to be repaired, and can be.
    Repairable,
    /// It was repaired.
    Repaired,
    /// It cannot be repaired here, or that failed.
    Left,
}

impl Outcome {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Note => "note",
            Outcome::Repairable => "repairable",
            Outcome::Repaired => "repaired",
            Outcome::Left => "left",
        }
    }

    /// The outcome of this word.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Outcome::Note, Outcome::Repairable, Outcome::Repaired, Outcome::Left];
        all.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// With which object; none if it is not about one.
    pub object: Option<ObjectName>,
    /// With which file or directory; empty if there is none to name.
    pub path: String,
    /// More about it; may be empty.
    pub detail: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What was done, would be done, or is left to do.
    pub action: String,
}

/// What a check looked at, and what became of its findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Records of blobs.
    pub blobs: u64,
    /// How many bytes of blobs were read and hashed.
    pub hashed_bytes: u64,
    /// Records of writes in progress.
    pub ingests: u64,
    /// Records of snapshots.
    pub snapshots: u64,
    /// Records of any other kind.
    pub others: u64,
    /// Findings that are no damage.
    pub notes: u64,
    /// Findings that can be repaired and were not asked to be.
    pub repairable: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// Findings that remain.
    pub left: u64,
}

impl CheckSummary {
    /// Counts a finding.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Note => self.notes += 1,
            Outcome::Repairable => self.repairable += 1,
            Outcome::Repaired => self.repaired += 1,
            Outcome::Left => self.left += 1,
        }
    }

    /// The exit status that tells of it: 0 without damage, 1 if all of it was repaired, 4 if some is left.
    ///
    /// Source: fsck(8), "Exit status".
    pub fn exit_status(&self) -> u8 {
        match (self.repairable + self.left, self.repaired) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 4,
        }
    }
}

/// What a check says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckEvent {
    /// How far it is.
    Progress {
        /// With what.
        step: String,
        /// How much of it is done.
        done: u64,
        /// How much there is; 0 if that is not known.
        total: u64,
    },
    /// Something is not as it should be.
    Finding(Finding),
    /// The end.
    Summary(CheckSummary),
}

impl fmt::Display for Finding {
    /// `blob-missing: content sha256:... in namespace default: the blob's file is not there; repaired: removed its record`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.problem.code())?;
        match &self.object {
            Some(object) if object.namespace.is_empty() => write!(f, "{object}: ")?,
            Some(object) => write!(f, "{object} in namespace {}: ", object.namespace.escape_debug())?,
            None => {}
        }
        f.write_str(self.problem.as_str())?;
        for part in [&self.path, &self.detail].into_iter().filter(|part| !part.is_empty()) {
            write!(f, ": {}", part.escape_debug())?;
        }
        match self.outcome {
            Outcome::Repairable => write!(f, "; --repair {}", self.action.escape_debug()),
            outcome if self.action.is_empty() => write!(f, "; {}", outcome.as_str()),
            outcome => write!(f, "; {}: {}", outcome.as_str(), self.action.escape_debug()),
        }
    }
}

impl fmt::Display for CheckSummary {
    /// `checked 12 blobs, 0 writes in progress, 7 snapshots and 9 other records: 1 repaired, 0 repairable, 0 left, 2 notes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckSummary { blobs, ingests, snapshots, others, .. } = self;
        write!(
            f,
            "checked {blobs} blobs, {ingests} writes in progress, {snapshots} snapshots and {others} other records"
        )?;
        if self.hashed_bytes > 0 {
            write!(f, ", read {} bytes", self.hashed_bytes)?;
        }
        if (self.repaired, self.repairable, self.left) == (0, 0, 0) {
            f.write_str(": no damage")?;
        } else {
            write!(f, ": {} repaired, {} repairable, {} left", self.repaired, self.repairable, self.left)?;
        }
        if self.notes > 0 { write!(f, ", {} notes", self.notes) } else { Ok(()) }
    }
}

/// Text as JSON writes it. Source: RFC 8259, section 7.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

impl CheckEvent {
    /// The same for programs: a JSON object on one line, whose `type` is `progress`, `finding` or `summary`.
    pub fn to_json(&self) -> String {
        let mut fields: Vec<(&str, String)> = Vec::new();
        match self {
            CheckEvent::Progress { step, done, total } => {
                fields.push(("type", quoted("progress")));
                fields.push(("step", quoted(step)));
                fields.push(("done", done.to_string()));
                fields.push(("total", total.to_string()));
            }
            CheckEvent::Finding(finding) => {
                fields.push(("type", quoted("finding")));
                fields.push(("problem", quoted(finding.problem.code())));
                if let Some(object) = &finding.object {
                    fields.push(("kind", quoted(object.kind.as_str())));
                    fields.push(("namespace", quoted(&object.namespace)));
                    fields.push(("snapshotter", quoted(&object.snapshotter)));
                    fields.push(("name", quoted(&object.name)));
                }
                fields.push(("path", quoted(&finding.path)));
                fields.push(("detail", quoted(&finding.detail)));
                fields.push(("outcome", quoted(finding.outcome.as_str())));
                fields.push(("action", quoted(&finding.action)));
            }
            CheckEvent::Summary(summary) => {
                fields.push(("type", quoted("summary")));
                for (name, value) in [
                    ("blobs", summary.blobs),
                    ("hashed_bytes", summary.hashed_bytes),
                    ("ingests", summary.ingests),
                    ("snapshots", summary.snapshots),
                    ("others", summary.others),
                    ("notes", summary.notes),
                    ("repairable", summary.repairable),
                    ("repaired", summary.repaired),
                    ("left", summary.left),
                    ("exit_status", summary.exit_status().into()),
                ] {
                    fields.push((name, value.to_string()));
                }
            }
        }
        let fields: Vec<String> =
            fields.into_iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        format!("{{{}}}", fields.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ObjectKind;
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_fsck() {
        let status = |outcomes: &[Outcome]| {
            let mut summary = CheckSummary::default();
            outcomes.iter().for_each(|outcome| summary.count(*outcome));
            summary.exit_status()
        };
        assert_eq!(status(&[]), 0);
        assert_eq!(status(&[Outcome::Note]), 0);
        assert_eq!(status(&[Outcome::Repaired, Outcome::Note]), 1);
        assert_eq!(status(&[Outcome::Repairable]), 4);
        assert_eq!(status(&[Outcome::Repaired, Outcome::Left]), 4);
    }

    #[test]
    fn words_are_read_back_and_a_name_cannot_break_the_line() {
        for problem in Problem::ALL {
            assert_eq!(Problem::parse(problem.code()), Some(*problem));
        }
        let finding = Finding {
            problem: Problem::SnapshotMissing,
            object: Some(ObjectName {
                kind: ObjectKind::Snapshot,
                namespace: "default".to_owned(),
                snapshotter: "overlayfs".to_owned(),
                name: "a\nb".to_owned(),
            }),
            path: "/r/7".to_owned(),
            detail: String::new(),
            outcome: Outcome::Repairable,
            action: "removes its record".to_owned(),
        };
        assert_eq!(
            finding.to_string(),
            "snapshot-missing: snapshot a\\nb (overlayfs) in namespace default: the snapshot's directory is not there: \
             /r/7; --repair removes its record"
        );
        assert_eq!(
            CheckEvent::Finding(finding).to_json(),
            r#"{"type":"finding","problem":"snapshot-missing","kind":"snapshot","namespace":"default","snapshotter":"overlayfs","name":"a\u000ab","path":"/r/7","detail":"","outcome":"repairable","action":"removes its record"}"#
        );
    }
}
