//! What every content store promises.

use std::sync::Arc;

use gantry_content::LocalContent;
use gantry_core::content::ContentStore;
use gantry_testkit::content_store_suite;

content_store_suite!(labelled, |dir: std::path::PathBuf| async move {
    Arc::new(LocalContent::open_labelled(&dir).expect("the store opens")) as Arc<dyn ContentStore>
});
