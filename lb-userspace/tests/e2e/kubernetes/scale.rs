//! A large cluster: 5,000 Services with ten endpoints each.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::apiserver::objects::{endpoint, service, slice};
use crate::harness::{Cluster, NODE, cases};

pub(crate) fn tests() -> Vec<Trial> {
    cases![a_large_cluster_is_served_and_what_changes_alone_is_written]
}

const SERVICES: usize = 5_000;
const ENDPOINTS: usize = 10;
/// For whole lists, on a busy machine and with an agent that is not optimized.
const PATIENCE: Duration = Duration::from_secs(240);
const CHANGES: &str = "kubeproxy_sync_proxy_rules_endpoint_changes_total";

fn name(n: usize) -> String {
    format!("web-{n:04}")
}

/// The address `n` of 10.`net`.0.0/16.
fn address(net: u8, n: usize) -> Ipv4Addr {
    let [_, _, high, low] = u32::try_from(n).expect("few").to_be_bytes();
    Ipv4Addr::new(10, net, high, low)
}

/// The Service's endpoints; those of an odd generation are other pods.
fn endpoints(n: usize, replaced: usize, generation: u8) -> Value {
    let one = |end: usize| {
        let generation = if end < replaced { generation } else { 0 };
        let address = address(150 + generation, n * ENDPOINTS + end);
        endpoint(address, &format!("pod-{end}"), if end == 0 { NODE } else { "other" })
    };
    slice(&name(n), "abcde", &(0..ENDPOINTS).map(one).collect::<Vec<_>>())
}

fn a_large_cluster_is_served_and_what_changes_alone_is_written() {
    let mut cluster = Cluster::without_agent();
    let services = (0..SERVICES).map(|n| service(&name(n), &[&address(98, n).to_string()]));
    cluster.api.set_all(services);
    cluster.api.set_all((0..SERVICES).map(|n| endpoints(n, 0, 0)));
    let begun = Instant::now();
    cluster.stage.agent.start();
    cluster.converges_within(PATIENCE, "5,000 Services");
    println!("{SERVICES} Services with {ENDPOINTS} endpoints each in {:?}", begun.elapsed());
    println!("anonymous memory: {} MiB", cluster.stage.agent.anonymous_memory() / 1024);

    // A rolling update: a thousand pods, one after the other, ten a Service.
    let before = cluster.counter(CHANGES);
    let begun = Instant::now();
    for replaced in 1..=ENDPOINTS {
        (0..100).for_each(|n| cluster.api.set(endpoints(n, replaced, 1)));
    }
    cluster.converges_within(PATIENCE, "1,000 other pods");
    println!("1,000 pods replaced in {:?}", begun.elapsed());
    let made = cluster.counter(CHANGES) - before;
    assert!((100..=1_000).contains(&made), "changes of slices: {made}");

    // A list of everything, in which one per cent is new.
    let before = cluster.counter(CHANGES);
    cluster.api.leave();
    cluster.api.set_all((0..SERVICES).step_by(100).map(|n| endpoints(n, ENDPOINTS, 2)));
    cluster.api.compact();
    cluster.api.come_back();
    let begun = Instant::now();
    cluster.converges_within(PATIENCE, "one per cent is new");
    println!("listed again in {:?}", begun.elapsed());
    let made = cluster.counter(CHANGES) - before;
    assert_eq!(made, 50, "one per cent of the slices has changed");
}
