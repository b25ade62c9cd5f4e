//! Connections outlive the agent, and begin while there is none.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::{LISTEN, NODE_PORT, node_port};
use crate::harness::lan::NODE;
use crate::harness::sandbox::{self, LB};
use crate::harness::{Lan, cases, eventually};
use crate::probe::{Kind, Probe};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_restart_loses_no_packet_and_no_connection,
        an_upgrade_loses_no_packet_and_no_connection,
    ]
}

/// To pods here and elsewhere, of both families.
fn targets() -> [SocketAddr; 4] {
    let [v4, v6] = NODE;
    [(v4, 0), (v4, 1), (v6, 0), (v6, 1)].map(|(ip, offset)| SocketAddr::new(ip, NODE_PORT + offset))
}

/// A client that sends without a pause, and one that comes anew all the time.
struct Traffic {
    streams: Probe,
    visitor: Probe,
}

impl Traffic {
    #[track_caller]
    fn start(lan: &Lan) -> Self {
        let (streams, visitor) = (lan.probe(), lan.probe());
        targets().into_iter().for_each(|to| streams.stream_start(to));
        let [near, far, near6, far6] = targets();
        let visits =
            [(Kind::Tcp4, near), (Kind::Tcp4, far), (Kind::Udp6, near6), (Kind::Tcp6, far6)];
        visitor.record_start(&visits);
        Self { streams, visitor }
    }

    #[track_caller]
    fn stop(self, what: &str) {
        for outcome in self.streams.streams_stop() {
            let bytes = outcome.unwrap_or_else(|error| panic!("a connection over {what}: {error}"));
            assert!(bytes > 0, "data flows over {what}");
        }
        let visits = self.visitor.record_stop();
        let wrong: Vec<_> = visits
            .iter()
            .filter(|visit| visit.outcome.as_deref() != Ok(["near", "far"][visit.target % 2]))
            .collect();
        let count = wrong.len();
        assert!(wrong.is_empty(), "{count} of {} over {what}: {:?}", visits.len(), wrong.first());
        assert!(visits.len() > 100, "only {} visits over {what}", visits.len());
    }
}

fn lan() -> Lan {
    let mut lan = Lan::start();
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let here = node_port("near", "near", NODE_PORT, "");
    let elsewhere = node_port("far", "far", NODE_PORT + 1, "");
    lan.apply(&[&near, &far, &here, &elsewhere]);
    lan
}

fn a_restart_loses_no_packet_and_no_connection() {
    let mut lan = lan();
    let traffic = Traffic::start(&lan);
    for signal in [Signal::TERM, Signal::KILL] {
        if signal == Signal::KILL {
            lan.agent.kill_nine();
        } else {
            assert_eq!(lan.agent.stop(signal), 0);
        }
        sleep(Duration::from_millis(200));
        lan.agent.start();
    }
    traffic.stop("restarts");
}

fn an_upgrade_loses_no_packet_and_no_connection() {
    let mut lan = lan();
    let traffic = Traffic::start(&lan);
    for binary in [sandbox::next_lb(), PathBuf::from(LB)] {
        assert_eq!(lan.agent.stop(Signal::TERM), 0);
        lan.agent.binary = binary;
        lan.agent.start();
        eventually("the takeover is complete", || match lan.agent.status().taking_over() {
            None => Ok(()),
            Some(layout) => Err(format!("{layout} still decides")),
        });
        sleep(Duration::from_millis(200));
    }
    traffic.stop("upgrades");
}
