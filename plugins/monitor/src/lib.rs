//! Watches containers: keeps them in the state that their labels ask for, and shows their figures.
//!
//! [`RestartMonitor`] looks at every container with a restart label, again and again, and starts or stops its task. What a label
//! means is in `policy`; how a task is replaced, in `change`. [`TaskMetrics`] writes the figures of all tasks to a [`Page`] of metrics,
//! which [`serve_metrics`] answers. All of them know the daemon's services by their traits only.
#![forbid(unsafe_code)]

mod backoff;
mod change;
mod figures;
mod http;
mod policy;
mod prometheus;
mod restart;
mod task_metrics;

pub use http::{Pages, serve_metrics};
pub use prometheus::{MetricKind, Page};
pub use restart::{RestartMonitor, Watched};
pub use task_metrics::TaskMetrics;
