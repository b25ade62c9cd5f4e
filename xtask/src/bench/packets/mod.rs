//! The packet path: what its programs take for a packet, by the kernel's own clock, and what traffic through a node
//! has of it, against nftables doing the same.

mod programs;

use anyhow::Result;

use super::Plan;
use super::pairs::Comparison;

/// Measures, and takes everything down.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Comparison>> {
    Ok(vec![programs::measure(plan)?])
}
