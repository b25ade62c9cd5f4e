//! Endpoints, ports and addresses change as fast as the agent takes them, under load. Every
//! connection must have reached a pod that was in the set at some moment during the call.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use lb_userspace::api::Client;
use lb_userspace::api::types::{ApplyRequest, Submitted, Verdict};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::{Listen, Pod, Stage, cases, rounds};
use crate::probe::{Kind, Probe, Record, now};

pub(crate) fn tests() -> Vec<Trial> {
    cases![every_connection_reaches_a_pod_of_its_moment]
}

/// An address outside every range; nothing leads there.
const SWAPPED: &str = "192.0.2.10";
const MOVED: &str = "192.0.2.11";
const PODS: usize = 8;

/// What the four Services are like at one moment. `a` and `b` share an external address and swap
/// their ports on it; `c` and `d` hand another one to and fro.
#[derive(Clone, Debug)]
struct State {
    /// Pods of a, b, c and d, by number.
    sets: [BTreeSet<usize>; 4],
    swapped: bool,
    moved: bool,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl State {
    fn random(random: &mut fastrand::Rng) -> Self {
        Self { sets: std::array::from_fn(|_| set(random)), swapped: false, moved: false }
    }

    /// Grow, shrink, replace all, swap ports, or move an address: the objects that say so.
    fn change(&mut self, random: &mut fastrand::Rng, pods: &[Pod]) -> Vec<Value> {
        let service = random.usize(..4);
        match random.u8(..10) {
            0 => self.swapped = !self.swapped,
            1 => self.moved = !self.moved,
            2..=4 => drop(self.sets[service].insert(random.usize(..PODS))),
            5..=7 if self.sets[service].len() > 1 => {
                let all: Vec<usize> = self.sets[service].iter().copied().collect();
                self.sets[service].remove(&all[random.usize(..all.len())]);
            }
            _ => self.sets[service] = set(random),
        }
        let mut objects: Vec<Value> = (0..4).map(|n| self.service(n)).collect();
        objects.extend((0..4).map(|n| self.slice(n, pods)));
        objects
    }

    fn service(&self, n: usize) -> Value {
        let (external, port) = match (n, self.swapped, self.moved) {
            (0, swapped, _) => (vec![SWAPPED], if swapped { 82 } else { 81 }),
            (1, swapped, _) => (vec![SWAPPED], if swapped { 81 } else { 82 }),
            (2, _, false) | (3, _, true) => (vec![MOVED], 83),
            _ => (Vec::new(), 83),
        };
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": NAMES[n], "namespace": "default"},
            "spec": {"externalIPs": external, "ports": [
                {"name": "own", "port": 8000 + n, "targetPort": 80},
                {"name": "dns", "port": 53 + n, "targetPort": 53, "protocol": "UDP"},
                {"name": "external", "port": port, "targetPort": 80},
            ]},
        })
    }

    fn slice(&self, n: usize, pods: &[Pod]) -> Value {
        let endpoint = |pod: &usize| json!({"addresses": [pods[*pod].v4], "conditions": {}});
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": NAMES[n], "namespace": "default",
                "labels": {"kubernetes.io/service-name": NAMES[n]}},
            "addressType": "IPv4",
            "ports": [
                {"name": "own", "port": 80}, {"name": "external", "port": 80},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
            "endpoints": self.sets[n].iter().map(endpoint).collect::<Vec<_>>(),
        })
    }

    /// The pods behind one of [`targets`].
    fn behind(&self, target: usize) -> &BTreeSet<usize> {
        &self.sets[match target {
            0..4 => target,
            4..8 => target - 4,
            8 => usize::from(self.swapped),
            9 => usize::from(!self.swapped),
            _ => 2 + usize::from(self.moved),
        }]
    }
}

fn set(random: &mut fastrand::Rng) -> BTreeSet<usize> {
    (0..=random.usize(..PODS / 2)).map(|_| random.usize(..PODS)).collect()
}

/// What clients connect to: each Service's own port, each one's UDP port, and the three external ones.
fn targets(stage: &Stage) -> Vec<(Kind, SocketAddr)> {
    let own = (0..).zip(NAMES).map(|(n, name)| (Kind::Tcp4, stage.frontend(name, 8000 + n)));
    let dns = (0..).zip(NAMES).map(|(n, name)| (Kind::Udp4, stage.frontend(name, 53 + n)));
    let external = [(SWAPPED, 81), (SWAPPED, 82), (MOVED, 83)].map(|(address, port)| {
        (Kind::Tcp4, SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port))
    });
    own.chain(dns).chain(external).collect()
}

/// A state, and when it may have been in force.
struct Era {
    /// Just before the agent was told.
    from: u64,
    /// Just after it had acknowledged the next one.
    until: u64,
    state: State,
}

fn every_connection_reaches_a_pod_of_its_moment() {
    let mut stage = Stage::start();
    let pods: Vec<Pod> = (0..PODS)
        .map(|n| stage.pod(&format!("pod-{n}"), "any", &[Listen::Tcp(80), Listen::Udp(53)]))
        .collect();
    let mut random = fastrand::Rng::with_seed(7);
    let agent = Driver::new(&stage);
    let first = State::random(&mut random);
    let from = now();
    agent.apply((0..4).map(|n| first.service(n)).chain((0..4).map(|n| first.slice(n, &pods))));
    let mut eras = vec![Era { from, until: u64::MAX, state: first }];

    let targets = targets(&stage);
    let probes: Vec<Probe> =
        (0..4).map(|n| if n % 2 == 0 { stage.probe() } else { stage.probe_among_pods() }).collect();
    probes.iter().for_each(|probe| probe.record_start(&targets));
    let (changes, started) = (rounds(1_000, 10_000), Instant::now());
    for _ in 0..changes {
        let mut state = eras.last().expect("the first").state.clone();
        let objects = state.change(&mut random, &pods);
        let from = now();
        agent.apply(objects);
        eras.last_mut().expect("the first").until = now();
        eras.push(Era { from, until: u64::MAX, state });
    }
    let lasted = started.elapsed();
    let records: Vec<Record> = probes.iter().flat_map(Probe::record_stop).collect();

    let mut wrong = Vec::new();
    for record in &records {
        let possible =
            eras.iter().filter(|era| era.from <= record.end && record.begin <= era.until);
        let allowed: BTreeSet<String> = possible
            .flat_map(|era| era.state.behind(record.target))
            .map(|pod| format!("pod-{pod}"))
            .collect();
        if !record.outcome.as_ref().is_ok_and(|pod| allowed.contains(pod)) {
            wrong.push(format!("{:?}: {record:?}, allowed {allowed:?}", targets[record.target]));
        }
    }
    let rate = records.len() as f64 / lasted.as_secs_f64();
    println!("{changes} changes in {lasted:?}, {} connections, {rate:.0} a second", records.len());
    assert!(records.len() > changes, "more connections than changes: {}", records.len());
    assert!(
        wrong.is_empty(),
        "{} of {}: {:#?}",
        wrong.len(),
        records.len(),
        &wrong[..wrong.len().min(10)]
    );
    let refused = stage.agent.status();
    assert_eq!(refused.refused(), &[] as &[Value], "after all changes");
}

/// Applies objects without starting a process for each change.
struct Driver {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Driver {
    fn new(stage: &Stage) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        Self { client: Client::new(&stage.agent.paths.run), runtime }
    }

    #[track_caller]
    fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        let position = String::new();
        let objects = objects.into_iter();
        let objects = objects.map(|object| Submitted { object, position: position.clone() });
        let request = ApplyRequest { objects: objects.collect(), dry_run: false };
        let outcomes = self.runtime.block_on(self.client.apply(&request)).expect("the agent runs");
        for outcome in outcomes {
            assert!(!matches!(outcome.result, Verdict::Refused(_)), "{outcome:?}");
        }
    }
}
