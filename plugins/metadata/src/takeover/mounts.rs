//! containerd's `mounts.db`: what its mount manager keeps mounted, in this boot.
//!
//! ```text
//! v1 / <namespace> / mounts / <name> / id, createdat, updatedat, lease, labels, active / <order> | system / <order>
//! ```
//!
//! Source: the schema as containerd documents it; of what is mounted it keeps type, mount point and time only.

use std::time::SystemTime;

use gantry_bolt::{Bucket, Database};
use gantry_core::mount::Mount;
use gantry_core::{ErrorKind, Labels, Namespace, Result};

use super::fields::{buckets, malformed, map_at, text, text_at, time_at, unsigned};
use super::report::{Problem, Report};

/// A list of mounts that is mounted.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) namespace: Namespace,
    pub(super) name: String,
    /// Also its directory.
    pub(super) id: i64,
    pub(super) lease: Option<String>,
    pub(super) labels: Labels,
    pub(super) created_at: SystemTime,
    pub(super) updated_at: SystemTime,
    /// Type, mount point and time.
    pub(super) active: Vec<(String, String, SystemTime)>,
    /// What is left to the client.
    pub(super) system: Vec<Mount>,
}

/// All that `database` says. Lists whose mounting did not end are nothing.
///
/// # Errors
/// `DataLoss` if the file is damaged.
pub(super) fn read(database: &Database, report: &mut Report) -> Result<Vec<Mounted>> {
    let mut found = Vec::new();
    let Some(schema) = database.root()?.bucket("v1")? else { return Ok(found) };
    for entry in buckets(&schema) {
        let (namespace, bucket) = entry?;
        let Some(all) = bucket.bucket("mounts")? else { continue };
        for entry in buckets(&all) {
            let (name, bucket) = entry?;
            if bucket.bucket("active")?.is_none() {
                continue;
            }
            match one(namespace.clone(), name.clone(), &bucket) {
                Ok(mounted) => found.push(mounted),
                Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                    let name = String::from_utf8_lossy(&name);
                    report.add(Problem::damaged(format!("mount {name:?} of the mount manager: {error}")));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn one(namespace: Vec<u8>, name: Vec<u8>, bucket: &Bucket<'_>) -> Result<Mounted> {
    let id = bucket.get("id")?.as_deref().and_then(unsigned).and_then(|id| i64::try_from(id).ok());
    let id =
        id.filter(|id| *id > 0 && *id < i64::MAX).ok_or_else(|| malformed("id is no directory's number"))?;
    let lease = text_at(bucket, "lease")?;
    let mut active = Vec::new();
    if let Some(all) = bucket.bucket("active")? {
        for entry in buckets(&all) {
            let (_, mount) = entry?;
            active.push((text_at(&mount, "type")?, text_at(&mount, "mp")?, time_at(&mount, "mat")?));
        }
    }
    let mut system = Vec::new();
    if let Some(all) = bucket.bucket("system")? {
        for entry in buckets(&all) {
            let (_, mount) = entry?;
            let options = text_at(&mount, "options")?;
            system.push(Mount {
                kind: text_at(&mount, "type")?,
                source: text_at(&mount, "source")?,
                target: text_at(&mount, "target")?,
                options: options.split('\0').filter(|option| !option.is_empty()).map(str::to_owned).collect(),
            });
        }
    }
    Ok(Mounted {
        namespace: Namespace::parse(text(namespace, "namespace")?)?,
        name: text(name, "its name")?,
        id,
        lease: (!lease.is_empty()).then_some(lease),
        labels: map_at(bucket, "labels")?,
        created_at: time_at(bucket, "createdat")?,
        updated_at: time_at(bucket, "updatedat")?,
        active,
        system,
    })
}
