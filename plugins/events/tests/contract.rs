//! What every event exchange promises.

use std::sync::Arc;

use gantry_core::events::EventService;
use gantry_events::EventExchange;
use gantry_testkit::event_exchange_suite;

event_exchange_suite!(exchange, |_: std::path::PathBuf| async move {
    Arc::new(EventExchange::new()) as Arc<dyn EventService>
});
