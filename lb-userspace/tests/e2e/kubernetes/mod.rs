//! `lb agent --kubernetes`: what a cluster's API server says is what the kernel serves, whatever happens
//! between the two.

mod access;
mod faults;
mod input;
mod metrics;
mod model;
mod order;
mod ranges;
mod scale;
mod serve;

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::{Cluster, PATIENCE, eventually, within};
use crate::probe::{Errno, Probe};

pub(crate) fn tests() -> Vec<Trial> {
    [
        serve::tests(),
        access::tests(),
        order::tests(),
        faults::tests(),
        ranges::tests(),
        input::tests(),
        scale::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Cluster {
    /// Waits until the maps are what the server's objects ask for.
    #[track_caller]
    fn converges(&self, what: &str) {
        self.converges_within(PATIENCE, what);
    }

    #[track_caller]
    fn converges_within(&self, patience: Duration, what: &str) {
        let expected = model::lines(&self.api);
        within(patience, &format!("{what}: the maps follow the server"), || {
            let maps = self.stage.agent.try_maps()?;
            if maps == expected { Ok(()) } else { Err(difference(&maps, &expected)) }
        });
    }
}

/// The first lines that one has and the other has not.
fn difference(maps: &[String], expected: &[String]) -> String {
    let without = |these: &[String], those: &[String]| -> Vec<String> {
        let new = these.iter().filter(|line| those.binary_search(line).is_err());
        new.take(5).cloned().collect()
    };
    let (surplus, missing) = (without(maps, expected), without(expected, maps));
    format!("the maps say {surplus:#?}, instead of {missing:#?}")
}

#[track_caller]
fn assert_served(probe: &Probe, to: SocketAddr, pods: &[&str]) {
    eventually(&format!("{to} leads to {pods:?}"), || match probe.tcp(to) {
        Ok(visit) if pods.contains(&visit.pod.as_str()) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[track_caller]
fn assert_fails(probe: &Probe, to: SocketAddr, wanted: Errno) {
    eventually(&format!("{to} fails with {wanted:?}"), || match probe.tcp(to) {
        Err(errno) if errno == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The port 80 of 10.96.0.`number`.
fn frontend(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, number], 80))
}
