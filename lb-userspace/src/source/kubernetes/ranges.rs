//! The cluster's service CIDRs, and those that were known last: an agent that starts while the API is
//! away refuses what the one before it refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;

use super::reflector::{Change, Receiver};
use crate::engine::Engine;

/// In the state folder: one range in each line.
pub(crate) const FILE: &str = "service-cidrs";

/// What was known last. A file that cannot be read says nothing.
pub fn remembered(state_dir: &Path) -> Vec<IpNet> {
    let text = fs::read_to_string(state_dir.join(FILE)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn remember(state_dir: &Path, ranges: &[IpNet]) -> io::Result<()> {
    if remembered(state_dir) == ranges {
        return Ok(());
    }
    let new = state_dir.join(format!("{FILE}.new"));
    let lines: String = ranges.iter().map(|range| format!("{range}\n")).collect();
    fs::write(&new, lines)?;
    fs::rename(&new, state_dir.join(FILE))
}

/// Hands the ranges of all `ServiceCIDR`s to the engine.
#[derive(Debug)]
pub(super) struct Ranges {
    engine: Engine,
    state_dir: PathBuf,
    by_name: BTreeMap<String, Vec<IpNet>>,
    /// While a list arrives: what it held so far.
    listed: Option<BTreeMap<String, Vec<IpNet>>>,
}

impl Ranges {
    pub(super) const fn new(engine: Engine, state_dir: PathBuf) -> Self {
        Self { engine, state_dir, by_name: BTreeMap::new(), listed: None }
    }

    async fn tell(&self) {
        let ranges: BTreeSet<IpNet> = self.by_name.values().flatten().copied().collect();
        let ranges: Vec<IpNet> = ranges.into_iter().collect();
        if let Err(error) = remember(&self.state_dir, &ranges) {
            let path = self.state_dir.join(FILE);
            tracing::warn!(
                "{}: {error}; the next agent begins without service CIDRs",
                path.display()
            );
        }
        self.engine.service_cidrs(ranges).await;
    }
}

impl Receiver<ServiceCIDR> for Ranges {
    fn begin(&mut self) {
        self.listed = Some(BTreeMap::new());
    }

    async fn change(&mut self, changes: Vec<Change<ServiceCIDR>>) {
        let ranges = self.listed.as_mut().unwrap_or(&mut self.by_name);
        for change in changes {
            match change {
                Change::Is(cidr) => {
                    let name = cidr.metadata.name.unwrap_or_default();
                    let cidrs = cidr.spec.into_iter().flat_map(|spec| spec.cidrs).flatten();
                    ranges.insert(name, cidrs.filter_map(|cidr| cidr.parse().ok()).collect());
                }
                Change::Gone(cidr) => {
                    drop(ranges.remove(cidr.metadata.name.as_deref().unwrap_or_default()));
                }
            }
        }
        if self.listed.is_none() {
            self.tell().await;
        }
    }

    async fn listed(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.by_name = listed;
            self.tell().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_remembered_and_a_damaged_file_says_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(remembered(folder.path()), []);
        let ranges = ["10.96.0.0/12", "fd00::/108"].map(|range| range.parse().expect("a range"));
        remember(folder.path(), &ranges).expect("written");
        assert_eq!(remembered(folder.path()), ranges);
        fs::write(folder.path().join(FILE), "10.0.0.0/8\n\u{0}x\n").expect("written");
        assert_eq!(remembered(folder.path()), ["10.0.0.0/8".parse().expect("a range")]);
        remember(folder.path(), &[]).expect("written");
        assert_eq!(remembered(folder.path()), []);
    }
}
