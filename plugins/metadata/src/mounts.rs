//! Activated mounts, written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::filters::Filters;
use gantry_core::mount::Mount;
use gantry_core::mounts::{Activation, ActiveMount, MountRecord, MountRecords};
use gantry_core::{Context, Error, ItemStream, Labels, LeaseId, Namespace, Result};
use gantry_store::{Reading, Row, Writing, params};

use crate::columns::{time_at, time_to_text};
use crate::database::Inner;
use crate::labels::{self, Owner};
use crate::paging;

/// Stores activations of mounts.
///
/// What is mounted ends with the machine, so a record counts in the boot that it was made in only.
#[derive(Clone)]
pub struct MetadataMounts {
    inner: Arc<Inner>,
}

impl MetadataMounts {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataMounts { inner }
    }
}

/// How many records a list reads at once.
const PAGE: usize = 128;

/// The longest name. Source: the longest key of containerd's database.
const MAX_NAME_BYTES: usize = 32_768;

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        // Source: containerd's answer, the error of its database.
        return Err(Error::unknown("mount name must not be empty: bucket name required"));
    }
    if name.len() > MAX_NAME_BYTES {
        let text = format!("a mount's name has {} bytes, and may have {MAX_NAME_BYTES}", name.len());
        return Err(Error::invalid_argument(text));
    }
    Ok(())
}

/// Texts in one column.
fn join<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<u8>> {
    let mut joined = Vec::new();
    for text in texts {
        if text.contains('\0') {
            return Err(Error::invalid_argument(format!("zero byte in {text:?} of a mount")));
        }
        joined.extend_from_slice(text.as_bytes());
        joined.push(0);
    }
    Ok(joined)
}

fn split(joined: &[u8]) -> Result<Vec<String>> {
    let Some(joined) = joined.strip_suffix(&[0]) else { return Ok(Vec::new()) };
    let texts = joined.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()));
    texts.collect::<Result<_, _>>().map_err(|_| Error::internal("a stored mount option is no text"))
}

fn number(id: i64) -> Result<u64> {
    u64::try_from(id).map_err(|_| Error::internal(format!("mount record {id}")))
}

/// A record without its mounts. Columns: id, namespace, name, lease, finished, pinned.
fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<MountRecord> {
    let id: i64 = row.get(0)?;
    let lease: Option<String> = row.get(3)?;
    Ok(MountRecord {
        id: number(id)?,
        namespace: row.get(1)?,
        activation: Activation {
            name: row.get(2)?,
            labels: labels::load(db, Owner::Mount, id)?,
            ..Activation::default()
        },
        lease: lease.map(LeaseId::parse).transpose()?,
        finished: row.get::<i64>(4)? != 0,
        pinned: row.get::<i64>(5)? != 0,
    })
}

const COLUMNS: &str = "id, namespace, name, lease, finished, pinned";

fn load_entries(db: &Reading<'_>, record: &mut MountRecord) -> Result<()> {
    let sql = "SELECT type, source, target, options, mount_point, mounted_at, data FROM mount_entries \
               WHERE mount = ?1 ORDER BY position";
    let activation = &mut record.activation;
    db.each(sql, params![record.id as i64], |row| {
        let mount = Mount {
            kind: row.get(0)?,
            source: row.get(1)?,
            target: row.get(2)?,
            options: split(&row.get::<Vec<u8>>(3)?)?,
        };
        let Some(mount_point) = row.get::<Option<String>>(4)? else {
            activation.system.push(mount);
            return Ok(());
        };
        let mounted_at = match row.get::<Option<String>>(5)? {
            Some(_) => Some(time_at(row, 5)?),
            None => None,
        };
        let mut data = BTreeMap::new();
        let mut pairs = split(&row.get::<Option<Vec<u8>>>(6)?.unwrap_or_default())?.into_iter();
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            data.insert(key, value);
        }
        activation.active.push(ActiveMount { mount, mounted_at, mount_point, data });
        Ok(())
    })
}

pub(crate) fn insert_entry(
    db: &Writing<'_>,
    id: i64,
    position: usize,
    mount: &Mount,
    active: Option<&ActiveMount>,
) -> Result<()> {
    let options = join(mount.options.iter().map(String::as_str))?;
    let data = active
        .map(|active| join(active.data.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()])))
        .transpose()?;
    let point = active.map(|active| active.mount_point.as_str());
    let at = active.and_then(|active| active.mounted_at).map(time_to_text);
    db.execute(
        "INSERT INTO mount_entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![id, position as i64, mount.kind, mount.source, mount.target, options, point, at, data],
    )
    .map(drop)
}

fn not_found(name: &str) -> Error {
    Error::not_found(format!("mount {name:?}"))
}

fn find(db: &Reading<'_>, namespace: &Namespace, name: &str) -> Result<Option<MountRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM mounts WHERE namespace = ?1 AND name = ?2");
    db.one(&sql, params![namespace.as_str(), name], |row| from_row(db, row))
}

#[async_trait]
impl MountRecords for MetadataMounts {
    async fn begin(&self, cx: &Context, name: &str, labels: Labels, pinned: bool) -> Result<u64> {
        check_name(name)?;
        let (namespace, name) = (cx.namespace()?.clone(), name.to_owned());
        let lease = cx.lease().map(LeaseId::to_string);
        let labels = labels::checked_for_key(labels)?;
        let boot = self.inner.store.boot().id.clone();
        let write = move |db: &Writing<'_>| {
            if find(db, &namespace, &name)?.is_some() {
                return Err(Error::already_exists(format!("mount {name:?}")));
            }
            let now = time_to_text(SystemTime::now());
            let id = db.insert(
                "INSERT INTO mounts (namespace, name, lease, boot_id, finished, pinned, created_at, updated_at) \
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?6)",
                params![namespace.as_str(), name, lease, boot, i64::from(pinned), now],
            )?;
            labels::store(db, Owner::Mount, id, &labels)?;
            number(id)
        };
        self.inner.change(write).await
    }

    async fn finish(&self, id: u64, active: &[ActiveMount], system: &[Mount]) -> Result<()> {
        let (active, system) = (active.to_vec(), system.to_vec());
        let write = move |db: &Writing<'_>| {
            let (id, now) = (id as i64, time_to_text(SystemTime::now()));
            let sql = "UPDATE mounts SET finished = 1, updated_at = ?2 WHERE id = ?1";
            if db.execute(sql, params![id, now])? == 0 {
                return Err(Error::not_found(format!("record {id} of a mount that was just made")));
            }
            for (position, active) in active.iter().enumerate() {
                insert_entry(db, id, position, &active.mount, Some(active))?;
            }
            for (position, mount) in system.iter().enumerate() {
                insert_entry(db, id, active.len() + position, mount, None)?;
            }
            Ok(())
        };
        self.inner.change(write).await
    }

    async fn remove(&self, id: u64) -> Result<()> {
        let write = move |db: &Writing<'_>| {
            db.execute("DELETE FROM mounts WHERE id = ?1", params![id as i64]).map(drop)
        };
        self.inner.change(write).await
    }

    async fn get(&self, cx: &Context, name: &str) -> Result<MountRecord> {
        let (namespace, name) = (cx.namespace()?.clone(), name.to_owned());
        let read = move |db: &Reading<'_>| {
            let mut record = find(db, &namespace, &name)?.ok_or_else(|| not_found(&name))?;
            load_entries(db, &mut record)?;
            Ok(record)
        };
        self.inner.store.read(read).await
    }

    async fn list(&self, cx: &Context) -> Result<ItemStream<Activation>> {
        let namespace = cx.namespace()?.clone();
        let fetch = move |db: &Reading<'_>, after: Option<&str>, limit: usize| {
            let sql = format!(
                "SELECT {COLUMNS} FROM mounts WHERE namespace = ?1 AND name > ?2 AND finished = 1 \
                 ORDER BY name LIMIT ?3"
            );
            let (namespace, after) = (namespace.as_str(), after.unwrap_or_default());
            let records = db.all(&sql, params![namespace, after, limit as i64], |row| from_row(db, row))?;
            let loaded = records.into_iter().map(|mut record| {
                load_entries(db, &mut record)?;
                Ok((record.activation.name.clone(), record.activation))
            });
            loaded.collect()
        };
        Ok(paging::list(Arc::clone(&self.inner), Filters::parse::<&str>(&[])?, PAGE, Arc::new(fetch)))
    }

    async fn all(&self) -> Result<Vec<MountRecord>> {
        let read = |db: &Reading<'_>| {
            db.all(&format!("SELECT {COLUMNS} FROM mounts ORDER BY id"), [], |row| from_row(db, row))
        };
        self.inner.store.read(read).await
    }

    async fn forget_lost(&self) -> Result<()> {
        let boot = self.inner.store.boot().id.clone();
        let write = move |db: &Writing<'_>| {
            let sql = "DELETE FROM mounts WHERE boot_id <> ?1 OR pinned = 1 OR finished = 0";
            db.execute(sql, params![boot]).map(drop)
        };
        self.inner.change(write).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_their_column() {
        for texts in [&[][..], &[""], &["a"], &["", "b=c,d", ""]] {
            let joined = join(texts.iter().copied()).unwrap();
            assert_eq!(split(&joined).unwrap(), texts);
        }
        assert!(join(["a\0b"]).is_err());
    }
}
