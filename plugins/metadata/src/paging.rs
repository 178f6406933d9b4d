//! Lists that are read page by page: no read transaction is held between two items.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use gantry_core::filters::{Adaptor, Filters};
use gantry_core::{Error, ItemStream, Result};
use gantry_store::Reading;

use crate::database::Inner;

/// Reads up to `limit` records whose key is above the given one, in byte order, each with its key.
pub(crate) type Fetch<T> =
    Arc<dyn Fn(&Reading<'_>, Option<&str>, usize) -> Result<Vec<(String, T)>> + Send + Sync>;

/// Some of a list's items, in byte order of their keys.
struct Page<T> {
    items: Vec<T>,
    /// The key behind which the next page begins; none if this is the last one.
    next: Option<String>,
}

/// The items of all pages that `filter` matches.
pub(crate) fn list<T>(inner: Arc<Inner>, filter: Filters, limit: usize, fetch: Fetch<T>) -> ItemStream<T>
where
    T: Adaptor + Send + 'static,
{
    let filter = Arc::new(filter);
    pages(inner, move |db, after| {
        let page = fetch(db, after, limit)?;
        let next = if page.len() < limit { None } else { page.last().map(|(key, _)| key.clone()) };
        let items = page.into_iter().map(|(_, item)| item).filter(|item| filter.matches(item)).collect();
        Ok(Page { items, next })
    })
}

/// As [`list`], of records of which a filter sees only a part that is read more cheaply: `heads` reads up to a number of
/// these above a key, each with its key, and `whole` makes the record of one that matched.
pub(crate) fn list_by_heads<T, H>(
    inner: Arc<Inner>,
    filter: Filters,
    limit: usize,
    heads: Fetch<H>,
    whole: impl Fn(&Reading<'_>, H) -> Result<T> + Send + Sync + 'static,
) -> ItemStream<T>
where
    T: Send + 'static,
    H: Adaptor + 'static,
{
    let filter = Arc::new(filter);
    pages(inner, move |db, after| {
        let page = heads(db, after, limit)?;
        let next = if page.len() < limit { None } else { page.last().map(|(key, _)| key.clone()) };
        let matched = page.into_iter().map(|(_, head)| head).filter(|head| filter.matches(head));
        Ok(Page { items: matched.map(|head| whole(db, head)).collect::<Result<_>>()?, next })
    })
}

/// As [`list`], of the records that have one of `names` and that `find` finds.
pub(crate) fn list_named<T>(
    inner: Arc<Inner>,
    filter: Filters,
    names: BTreeSet<String>,
    limit: usize,
    find: impl Fn(&Reading<'_>, &str) -> Result<Option<T>> + Send + Sync + 'static,
) -> ItemStream<T>
where
    T: Adaptor + Send + 'static,
{
    let (filter, names) = (Arc::new(filter), names.into_iter().collect::<Vec<_>>());
    pages(inner, move |db, after| {
        let begin = after.map_or(0, |after| names.partition_point(|name| name.as_str() <= after));
        let end = names.len().min(begin + limit);
        let mut items = Vec::new();
        for name in &names[begin..end] {
            items.extend(find(db, name)?.filter(|item| filter.matches(item)));
        }
        let next = if end < names.len() { names[begin..end].last().cloned() } else { None };
        Ok(Page { items, next })
    })
}

fn pages<T: Send + 'static>(
    inner: Arc<Inner>,
    fetch: impl Fn(&Reading<'_>, Option<&str>) -> Result<Page<T>> + Send + Sync + 'static,
) -> ItemStream<T> {
    let fetch = Arc::new(fetch);
    // The state is the key to go on behind; none at all once the last page was read.
    let pages = stream::try_unfold(Some(None::<String>), move |state| {
        let (inner, fetch) = (Arc::clone(&inner), Arc::clone(&fetch));
        async move {
            let Some(after) = state else { return Ok::<_, Error>(None) };
            let page = inner.store.read(move |db| fetch(db, after.as_deref())).await?;
            Ok(Some((page.items, page.next.map(Some))))
        }
    });
    pages.map_ok(|items| stream::iter(items.into_iter().map(Ok))).try_flatten().boxed()
}
