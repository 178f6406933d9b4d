//! Contract suites: what every implementation of a trait of `core` promises.
//!
//! An implementor's `tests/contract.rs` names a suite and says how to open an empty store in a directory:
//!
//! ```text
//! container_store_suite!(metadata, |dir| async move { Arc::new(MetadataContainers::open(&dir)) as Arc<dyn ContainerStore> });
//! ```
//!
//! `snapshotter_suite!(overlayfs, root, |dir| ..)` runs each test as root, isolated.
//!
//! Each promise becomes one test of its own. Promises are containerd's, seen in the answers of the real daemon.

use std::future::Future;

use futures_util::TryStreamExt;
use gantry_core::field_mask::FieldMask;
use gantry_core::{Context, ErrorKind, ItemStream, Labels, Namespace, Result};

pub mod containers;
pub mod content;
pub mod events;
pub mod images;
pub mod leases;
pub mod namespaces;
pub mod sandboxes;
pub mod snapshots;

/// Runs one promise to its end on a runtime of its own.
#[doc(hidden)]
pub fn play<Story: Future<Output = ()>>(story: Story) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(story);
}

/// Makes one test of each promise of a suite. With `root` before what opens it, each is run as root, isolated.
#[doc(hidden)]
#[macro_export]
macro_rules! suite_of {
    ($module:ident, $suite:ident, root $open:expr, [$($promise:ident),* $(,)?]) => {
        $crate::suite_of!(@ $module, $suite, root, $open, [$($promise),*]);
    };
    ($module:ident, $suite:ident, $open:expr, [$($promise:ident),* $(,)?]) => {
        $crate::suite_of!(@ $module, $suite, anyone, $open, [$($promise),*]);
    };
    (@ $module:ident, $suite:ident, $who:ident, $open:expr, [$($promise:ident),*]) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $promise() {
                    $crate::suite_as!($who);
                    let dir = tempfile::tempdir().expect("a temporary directory");
                    let open = $open;
                    let path = dir.path().to_path_buf();
                    $crate::suite::play(async move {
                        let store = open(path).await;
                        $crate::suite::$suite::$promise(store).await;
                    });
                }
            )*
        }
    };
}

/// As whom a promise is tested.
#[doc(hidden)]
#[macro_export]
macro_rules! suite_as {
    (root) => {
        $crate::root!();
    };
    (anyone) => {};
}

/// A call in the namespace `name`.
fn cx(name: &str) -> Context {
    Context::new(Namespace::parse(name).expect("a valid namespace"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask::new(paths.iter().copied())
}

fn filters(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

async fn all<T>(list: Result<ItemStream<T>>) -> Vec<T> {
    let stream = list.expect("the list begins");
    stream.try_collect().await.expect("the list goes on to its end")
}

/// Asserts that `result` is an error of `kind`.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(value) => panic!("wanted {kind:?}, got {value:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{error}"),
    }
}
