//! What the agent tells of itself to programs: metrics.

mod metrics;
mod sync;

pub use metrics::{Metrics, PORT, serve};
pub use sync::SyncMetrics;
