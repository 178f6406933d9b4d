//! Lists that are read page by page: no read transaction is held between two items.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gantry_core::filters::{Adaptor, Filters};
use gantry_core::{Error, ItemStream, Result};
use gantry_store::Reading;

use crate::database::Inner;

/// Reads up to `limit` records whose key is above the given one, in byte order, each with its key.
pub(crate) type Fetch<T> =
    Arc<dyn Fn(&Reading<'_>, Option<&str>, usize) -> Result<Vec<(String, T)>> + Send + Sync>;

/// The items of all pages that `filter` matches.
pub(crate) fn list<T>(inner: Arc<Inner>, filter: Filters, limit: usize, fetch: Fetch<T>) -> ItemStream<T>
where
    T: Adaptor + Send + 'static,
{
    let filter = Arc::new(filter);
    // The state is the key to go on behind; none at all once the last page was read.
    let pages = stream::try_unfold(Some(None::<String>), move |state| {
        let (inner, fetch) = (Arc::clone(&inner), Arc::clone(&fetch));
        async move {
            let Some(after) = state else { return Ok::<_, Error>(None) };
            let page = inner.store.read(move |db| fetch(db, after.as_deref(), limit)).await?;
            let next = if page.len() < limit { None } else { page.last().map(|(key, _)| Some(key.clone())) };
            Ok(Some((page, next)))
        }
    });
    pages
        .map_ok(move |page| {
            let filter = Arc::clone(&filter);
            let matched = page.into_iter().map(|(_, item)| item).filter(move |item| filter.matches(item));
            stream::iter(matched.map(Ok).collect::<Vec<_>>())
        })
        .try_flatten()
        .boxed()
}
