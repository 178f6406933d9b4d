//! A fake promises what every implementation does.

use std::sync::Arc;

use gantry_core::content::ContentStore;
use gantry_testkit::{FakeContent, content_store_suite};

content_store_suite!(fake, |_: std::path::PathBuf| async move {
    Arc::new(FakeContent::default()) as Arc<dyn ContentStore>
});
