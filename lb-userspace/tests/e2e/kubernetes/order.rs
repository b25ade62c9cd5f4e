//! The same objects end in the same maps, in whatever order they come.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::difference;
use crate::apiserver::Resource;
use crate::apiserver::objects::{endpoint, patched, service, slice};
use crate::harness::{Cluster, NODE, Stage, cases, eventually, rounds};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        services_first_slices_first_and_shuffled_end_alike,
        any_history_ends_in_what_is_there,
        a_standalone_agent_with_the_same_objects_has_the_same_maps,
    ]
}

/// Numbers of Services, and the ends of their addresses: a standalone agent has a Service of its own at the first.
const NUMBERS: std::ops::RangeInclusive<u8> = 11..=40;

fn name(number: u8) -> String {
    format!("web-{number:02}")
}

fn web(number: u8) -> Value {
    let [four, six] = [format!("10.96.0.{number}"), format!("fd00:10:96::{number:x}")];
    let all = service(&name(number), &[&four, &six]);
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
    ]);
    // A selector would have a standalone agent look for Pods.
    patched(all, &json!({"spec": {"selector": null, "ports": ports}}))
}

/// A slice with some of twenty endpoints, half of them here.
fn some(random: &mut fastrand::Rng, number: u8, suffix: &str) -> Value {
    let v6 = suffix.starts_with("six");
    let mut endpoints = Vec::new();
    for n in 1..=20_u8 {
        if random.u8(..4) > 0 {
            continue;
        }
        let address = if v6 { format!("fd00:10:244:1::{n:x}") } else { format!("10.244.1.{n}") };
        let address: std::net::IpAddr = address.parse().expect("an address");
        let node = if n % 2 == 0 { NODE } else { "other" };
        endpoints.push(endpoint(address, &format!("pod-{n}"), node));
    }
    let ports = json!([
        {"name": "http", "port": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "UDP"},
    ]);
    let family = if v6 { "IPv6" } else { "IPv4" };
    let slice = slice(&name(number), suffix, &endpoints);
    patched(slice, &json!({"ports": ports, "addressType": family}))
}

fn objects(random: &mut fastrand::Rng) -> (Vec<Value>, Vec<Value>) {
    let services = NUMBERS.map(web).collect();
    let suffixes = ["four-a", "four-b", "six-a"];
    let slices = NUMBERS.flat_map(|n| suffixes.map(|suffix| (n, suffix)));
    (services, slices.map(|(n, suffix)| some(random, n, suffix)).collect())
}

fn services_first_slices_first_and_shuffled_end_alike() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (services, slices) = objects(&mut random);
    let mut shuffled = [services.clone(), slices.clone()].concat();
    random.shuffle(&mut shuffled);
    let orders =
        [[services.clone(), slices.clone()].concat(), [slices, services].concat(), shuffled];
    let ends = orders.map(|objects| {
        let cluster = Cluster::start();
        // One by one, so that the agent sees states between.
        objects.into_iter().for_each(|object| cluster.api.set(object));
        cluster.converges(&format!("seed {seed}"));
        cluster.stage.agent.maps()
    });
    assert_eq!(ends[0], ends[1], "Services first, slices first; seed {seed}");
    assert_eq!(ends[0], ends[2], "Services first, shuffled; seed {seed}");
}

fn any_history_ends_in_what_is_there() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::start();
    for round in 0..rounds(4, 40) {
        for _ in 0..100 {
            let number = random.u8(NUMBERS);
            let suffix = ["four-a", "four-b", "six-a"][random.usize(..3)];
            let exists =
                |resource, name: &str| cluster.api.get(resource, "default", name).is_some();
            let (service, slice) = (name(number), format!("{}-{suffix}", name(number)));
            match random.u8(..10) {
                0 if exists(Resource::Services, &service) => {
                    cluster.api.delete(Resource::Services, "default", &service);
                }
                1 if exists(Resource::EndpointSlices, &slice) => {
                    cluster.api.delete(Resource::EndpointSlices, "default", &slice);
                }
                0..5 => cluster.api.set(web(number)),
                _ => cluster.api.set(some(&mut random, number, suffix)),
            }
        }
        cluster.converges(&format!("round {round}, seed {seed}"));
    }
}

fn a_standalone_agent_with_the_same_objects_has_the_same_maps() {
    let seed = fastrand::u64(..);
    let (services, slices) = objects(&mut fastrand::Rng::with_seed(seed));
    let cluster = Cluster::start();
    cluster.api.set_all(services.into_iter().chain(slices));
    cluster.converges(&format!("seed {seed}"));
    let all = [Resource::Services, Resource::EndpointSlices].map(|it| cluster.api.objects(it));

    let mut alone = Stage::without_agent();
    alone.agent.set_options(&["--node-name", NODE]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all.concat()});
    alone.write_manifest("all.json", &list.to_string());
    alone.agent.start();
    let expected = cluster.stage.agent.maps();
    eventually(&format!("the standalone agent has the same maps; seed {seed}"), || {
        let maps = alone.agent.try_maps()?;
        if maps == expected { Ok(()) } else { Err(difference(&maps, &expected)) }
    });
}
