//! Files of the content store that no record names.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::TryStreamExt;
use gantry_core::content::{ContentFiles, Stray};
use gantry_core::maintenance::check::{Outcome, Problem};
use gantry_core::maintenance::{ObjectKind, ObjectName};
use gantry_core::{Context, Digest, ErrorKind, Result};

use super::{Checker, Draft, Mended, PAGE};

impl Checker {
    /// Every file has its record.
    pub(super) async fn files(&mut self) -> Result<()> {
        self.progress("files of content", 0, 0).await?;
        let mut stored = self.inner.content.list(&Context::background(), &[]).await?;
        let mut page = Vec::new();
        loop {
            let next = stored.try_next().await?;
            let ended = next.is_none();
            page.extend(next.map(|info| info.digest.into_string()));
            if page.len() >= PAGE || ended {
                let names = std::mem::take(&mut page);
                for digest in self.inner.without_record("blobs", "digest", names).await? {
                    self.orphan(Digest::parse(digest)?).await?;
                }
            }
            if ended {
                break;
            }
        }
        match self.inner.content.files() {
            Some(files) => self.strays(files).await,
            None => Ok(()),
        }
    }

    /// The second look at a blob without record: a commit or removal that is under way holds its lock, and a collection that
    /// is about to remove it is over.
    async fn orphan(&mut self, digest: Digest) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let size = {
            let _collections = inner.collector.pause().await;
            let _removals = inner.removals.write().await;
            let _alone = inner.digests.lock(digest.as_str().to_owned()).await;
            let name = vec![digest.to_string()];
            if inner.garbage.knows_blob(digest.as_str())
                || inner.without_record("blobs", "digest", name).await?.is_empty()
                || inner.is_expected(digest.as_str()).await?
            {
                return Ok(());
            }
            match inner.content.info(&Context::background(), &digest).await {
                Ok(info) => info.size_bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        };
        let object = ObjectName {
            kind: ObjectKind::Content,
            namespace: String::new(),
            snapshotter: String::new(),
            name: digest.to_string(),
        };
        let draft = Draft::new(Problem::BlobWithoutRecord).object(object).detail(format!("{size} bytes"));
        let repair = async move {
            inner.remove_blob(digest.as_str()).await?;
            Ok(Mended::Done("removed the file".to_owned()))
        };
        self.settle(draft, "removes the file", repair).await
    }

    async fn strays(&mut self, files: Arc<dyn ContentFiles>) -> Result<()> {
        let look = |files: Arc<dyn ContentFiles>| self.inner.blocking(move || files.strays());
        let mut found = look(Arc::clone(&files)).await?;
        if found.is_empty() {
            return Ok(());
        }
        self.before_second_look().await;
        let again: BTreeSet<_> =
            look(Arc::clone(&files)).await?.into_iter().map(|stray| stray.path).collect();
        found.retain(|stray| again.contains(&stray.path));
        for stray in found {
            let draft = Draft::new(Problem::StrayFile).path(stray.path.display()).detail(stray.what.clone());
            if stray.removable {
                let repair = self.remove_stray(Arc::clone(&files), stray);
                self.settle(draft, "removes it", repair).await?;
            } else {
                let advice = "nobody removes it: look at it, and remove it if it is not yours";
                self.found(draft, Outcome::Note, advice).await?;
            }
        }
        Ok(())
    }

    fn remove_stray(
        &self,
        files: Arc<dyn ContentFiles>,
        stray: Stray,
    ) -> impl Future<Output = Result<Mended>> + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            inner.blocking(move || files.remove_stray(&stray)).await?;
            Ok(Mended::Done("removed it".to_owned()))
        }
    }
}
