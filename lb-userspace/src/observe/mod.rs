//! What the agent tells of itself to programs: metrics.

mod metrics;

pub use metrics::{Metrics, serve};
