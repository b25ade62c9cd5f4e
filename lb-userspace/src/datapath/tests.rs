//! The update protocol against the model: every prefix of every batch is legal, failed calls are
//! repaired, and a new agent goes on from wherever the old one died.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{Address, FrontendKey, FrontendKind as EntryKind, Port, protocol};
use lb_common::maglev::EMPTY;

use super::Refused;
use super::maps::{Capacity, Maps as _};
use super::model::{Allowed, Model};
use super::ranges::SourceRange;
use super::set::Endpoint;
use super::writer::{Writer, keys};
use crate::object::{Key, Kind};
use crate::plan::{
    Backend, Family, Frontend, FrontendKind, Part, Policy, Protocol, ServicePortId, Wanted,
};
use crate::sockets::{DeadPeer, Membership};

mod outside;
mod properties;

/// Small enough that every pool runs short within a few batches.
const SMALL: Capacity = Capacity {
    frontends: 16,
    services: 4,
    slots: 14,
    backends: 12,
    ranges: 3,
    tables: 1,
    table_size: 251,
};
const AMPLE: Capacity = Capacity {
    frontends: 64,
    services: 16,
    slots: 256,
    backends: 256,
    ranges: 32,
    tables: 8,
    table_size: 251,
};

/// Clients outside, who come by load balancers.
const SOURCES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
];

/// The wanted state of a test.
type State = BTreeMap<ServicePortId, Wanted>;

fn id(n: u16) -> ServicePortId {
    part(n, Part::Port(Protocol::Tcp, 80))
}

fn part(n: u16, part: Part) -> ServicePortId {
    let service = Key::new(Kind::Service, "default", &format!("s{n}"));
    ServicePortId { service, family: Family::V4, part }
}

fn frontend(last: u8, port: u16, kind: FrontendKind) -> Frontend {
    Frontend { address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, last)), port, kind }
}

/// A service port by its ClusterIPs' last octets and its pods'. A pod with a high number drains: it
/// has an entry and is in no list, or not in the local one.
fn wanted(vips: &[u8], pods: &[u8]) -> Wanted {
    let backend = |&n: &u8| Backend {
        address: IpAddr::V4(Ipv4Addr::new(10, 244, 0, n)),
        port: 8080,
        cluster: n < 200,
        local: n < 100,
        here: n < 100,
    };
    Wanted {
        frontends: vips.iter().map(|&vip| frontend(vip, 80, FrontendKind::ClusterIp)).collect(),
        backends: pods.iter().map(backend).collect(),
        policy: Policy { external_local: true, ..Policy::default() },
        ..Wanted::default()
    }
}

/// A Service: its port, and its addresses themselves.
fn service(n: u16, vips: &[u8], pods: &[u8]) -> [(ServicePortId, Wanted); 2] {
    let addresses = vips.iter().map(|&vip| frontend(vip, 0, FrontendKind::Address)).collect();
    let addresses = Wanted { frontends: addresses, ..Wanted::default() };
    [(id(n), wanted(vips, pods)), (part(n, Part::Addresses), addresses)]
}

fn key(n: u8) -> FrontendKey {
    let address = Address::from(IpAddr::V4(Ipv4Addr::new(10, 96, 0, n)));
    FrontendKey::new(address, Port::new(80), protocol::TCP)
}

fn pods(numbers: &[u8]) -> BTreeSet<Endpoint> {
    let endpoint = |&n: &u8| (IpAddr::V4(Ipv4Addr::new(10, 244, 0, n)).into(), Port::new(8080));
    numbers.iter().map(endpoint).collect()
}

/// The endpoints that clients of a ClusterIP may get.
fn selected(wanted: &Wanted) -> impl Iterator<Item = Endpoint> + '_ {
    reached(wanted, FrontendKind::ClusterIp)
}

/// The endpoints that clients on the node may get by a frontend of this kind.
fn reached(wanted: &Wanted, kind: FrontendKind) -> impl Iterator<Item = Endpoint> + '_ {
    let local = wanted.policy.internal_local && kind == FrontendKind::ClusterIp;
    let reached = wanted.backends.iter().filter(move |b| if local { b.local } else { b.cluster });
    reached.map(|backend| (backend.address.into(), Port::new(backend.port)))
}

/// What clients connect to.
fn frontends(wanted: &Wanted) -> impl Iterator<Item = FrontendKey> + '_ {
    kinds(wanted).map(|(key, _)| key)
}

/// What clients connect to, and what it is.
fn kinds(wanted: &Wanted) -> impl Iterator<Item = (FrontendKey, FrontendKind)> + '_ {
    let ports = wanted.frontends.iter().filter(|frontend| frontend.kind.is_port());
    ports.map(|f| (FrontendKey::new(f.address.into(), Port::new(f.port), protocol::TCP), f.kind))
}

/// What every frontend should lead to in this state.
fn expected(state: &State) -> Allowed {
    let entries =
        |wanted| kinds(wanted).map(move |(key, kind)| (key, reached(wanted, kind).collect()));
    state.values().flat_map(entries).collect()
}

/// Who may come by which load balancer in this state, and who may not.
fn judgements(state: &State) -> impl Iterator<Item = (FrontendKey, Address, bool)> + '_ {
    state.iter().flat_map(|(id, wanted)| {
        keys(id, wanted).into_iter().flat_map(move |(key, kind)| {
            SOURCES.iter().map(move |source| {
                let in_range = wanted.source_ranges.iter().any(|range| range.contains(source));
                let is_open = kind != FrontendKind::LoadBalancer || !wanted.policy.restricted;
                (key, Address::from(*source), is_open || in_range)
            })
        })
    })
}

/// What may also become of clients of one service for a moment: ranges of before and after let in
/// wherever it is a balancer, and what it gives up or takes over may turn them away.
fn passing(
    from: Option<&Wanted>,
    to: Option<&Wanted>,
    id: &ServicePortId,
) -> Vec<(FrontendKey, Address, bool)> {
    let keys = |wanted: Option<&Wanted>| wanted.map_or_else(BTreeMap::new, |w| keys(id, w));
    let (old, new) = (keys(from), keys(to));
    let ranges = || from.iter().chain(&to).flat_map(|wanted| &wanted.source_ranges);
    let mut passing = Vec::new();
    for key in old.keys().chain(new.keys()) {
        for source in SOURCES {
            if ranges().any(|range| range.contains(&source)) {
                passing.push((*key, source.into(), true));
            }
            if !(old.contains_key(key) && new.contains_key(key)) {
                passing.push((*key, source.into(), false));
            }
        }
    }
    passing
}

/// What the maps hold besides frontends and runs is what the state wants: tables of the cluster
/// lists, ranges, and where endpoints are.
fn assert_complete(writer: &Writer<Model>, state: &State) {
    let mut tables = BTreeSet::new();
    let mut ranges = BTreeSet::new();
    for (id, wanted) in state {
        let index = writer.services[id].index;
        let policy = Policy::from_word(writer.maps.service(index).policy);
        assert_eq!(Policy { maglev: 0, ..policy }, wanted.policy, "{id:?}");
        let lacks_table = writer.services[id].set.lacks_table;
        assert_eq!(policy.maglev != 0 || lacks_table, wanted.maglev, "{id:?}");
        if policy.maglev != 0 {
            assert!(tables.insert(policy.maglev), "{id:?} shares a table");
            let cluster = wanted.backends.iter().filter(|backend| backend.cluster);
            let expected: BTreeSet<_> =
                cluster.map(|b| (b.address.into(), b.port, b.here)).collect();
            let named = writer.maps.spread.named(policy.maglev - 1).filter(|id| *id != EMPTY);
            let backends = named.map(|id| writer.maps.backend(id));
            let named: BTreeSet<_> =
                backends.map(|b| (b.address, b.port.number(), b.here != 0)).collect();
            assert_eq!(named, expected, "{id:?}");
        }
        ranges.extend(wanted.source_ranges.iter().map(|range| (index, SourceRange::from(range))));
    }
    let spread = state.values().filter(|wanted| wanted.maglev).count();
    assert_eq!(tables.len(), spread.min(writer.maps.capacity().tables as usize), "tables in use");
    assert_eq!(writer.limit().is_some(), tables.len() < spread);
    assert_eq!(writer.maps.ranges, ranges);
    assert_eq!(writer.pools.tables.used() as usize, tables.len());
    assert_eq!(writer.pools.ranges.used as usize, ranges.len());
}

/// Tells the model what may be seen while `from` becomes `to`: a frontend leads to whatever is in
/// the set of a service that has it, old or new.
fn announce(model: &mut Model, from: &State, to: &State) {
    model.announced.clear();
    model.announced_listed.clear();
    for (id, wanted) in from.iter().chain(to) {
        let states = [from, to].into_iter().filter_map(|state| state.get(id));
        let listed = states
            .clone()
            .flat_map(|wanted| wanted.backends.iter().filter(|b| b.cluster || b.local));
        let listed: BTreeSet<Endpoint> =
            listed.map(|b| (b.address.into(), Port::new(b.port))).collect();
        for (key, kind) in kinds(wanted) {
            let endpoints: BTreeSet<Endpoint> =
                states.clone().flat_map(|wanted| reached(wanted, kind)).collect();
            model.announced_listed.entry(key).or_default().extend(&listed);
            model.listed.entry(key).or_default().extend(&listed);
            model.announced.entry(key).or_default().extend(&endpoints);
            model.allowed.entry(key).or_default().extend(&endpoints);
        }
    }
    model.announced_just = judgements(from).chain(judgements(to)).collect();
    for id in from.keys().chain(to.keys()) {
        model.announced_just.extend(passing(from.get(id), to.get(id), id));
    }
    model.just.extend(&model.announced_just);
    // Also in a service that a frontend leaves: its set may have become empty a moment before. Of
    // one that several services claim, it is not known here who has it.
    let populated = |state: &State, key: &FrontendKey| {
        let kind = |wanted: &Wanted| kinds(wanted).find(|(k, _)| k == key).map(|(_, kind)| kind);
        let owners = state.iter().filter_map(|(id, wanted)| Some((id, wanted, kind(wanted)?)));
        let [(id, wanted, kind)] = owners.collect::<Vec<_>>()[..] else { return false };
        let after = to.get(id).is_none_or(|after| reached(after, kind).next().is_some());
        reached(wanted, kind).next().is_some() && after
    };
    let keys = model.announced.keys();
    model.steady = keys.filter(|key| populated(from, key) && populated(to, key)).copied().collect();
}

/// Applies the difference of two states.
fn change(writer: &mut Writer<Model>, from: &State, to: &State) -> Vec<Refused> {
    announce(&mut writer.maps, from, to);
    let ids: BTreeSet<&ServicePortId> = from.keys().chain(to.keys()).collect();
    let changed = ids.into_iter().filter(|id| from.get(id) != to.get(id));
    writer.apply(changed.map(|id| (id.clone(), to.get(id).cloned())).collect())
}

/// As [`change`]; the ids that were refused.
fn step(writer: &mut Writer<Model>, from: &State, to: &State) -> BTreeSet<ServicePortId> {
    change(writer, from, to).into_iter().map(|refused| refused.id).collect()
}

fn state(services: &[(u16, &[u8], &[u8])]) -> State {
    services.iter().flat_map(|(n, vips, pods)| service(*n, vips, pods)).collect()
}

#[test]
fn services_come_change_and_go() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let states = [
        state(&[]),
        state(&[(1, &[1], &[1, 2])]),
        state(&[(1, &[1], &[2, 3, 150]), (2, &[2], &[2])]),
        state(&[(1, &[1, 5], &[3, 250]), (2, &[2], &[])]),
        state(&[(2, &[2], &[9])]),
        state(&[]),
    ];
    for pair in states.windows(2) {
        assert!(step(&mut writer, &pair[0], &pair[1]).is_empty());
        assert_eq!(writer.maps.served(), expected(&pair[1]));
    }
    assert!(writer.maps.tables.frontends.is_empty(), "no address entry is left");
    writer.grace().expect("the model's grace period");
    let used =
        (writer.pools.slots.used(), writer.pools.backends.used(), writer.pools.services.used());
    assert_eq!(used, (0, 0, 0), "nothing is lost");
}

#[test]
fn an_address_has_its_entry_while_it_has_a_port() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let one = state(&[(1, &[1], &[1])]);
    step(&mut writer, &State::new(), &one);
    let address = FrontendKey::of_address(key(1).address);
    assert_eq!(writer.maps.tables.frontends[&address].kind(), EntryKind::Address);
    step(&mut writer, &one, &State::new());
    assert!(!writer.maps.tables.frontends.contains_key(&address));
}

#[test]
fn an_address_whose_only_port_changes_stays_known() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let one = state(&[(1, &[1], &[1])]);
    step(&mut writer, &State::new(), &one);
    let mut other = one.clone();
    other.get_mut(&id(1)).expect("made above").frontends[0].port = 81;
    assert!(step(&mut writer, &one, &other).is_empty());
    assert_eq!(writer.maps.served(), expected(&other));
    let address = FrontendKey::of_address(key(1).address);
    assert!(writer.maps.tables.frontends.contains_key(&address));
}

#[test]
fn an_address_that_moves_is_served_throughout() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let before = state(&[(1, &[1], &[1]), (2, &[2], &[2])]);
    let after = state(&[(1, &[2], &[1]), (2, &[1], &[2])]);
    step(&mut writer, &State::new(), &before);
    assert!(step(&mut writer, &before, &after).is_empty(), "a swap");
    assert_eq!(writer.maps.served(), expected(&after));
    let renamed = state(&[(3, &[2], &[1]), (2, &[1], &[2])]);
    assert!(step(&mut writer, &after, &renamed).is_empty(), "a Service by another name");
    assert_eq!(writer.maps.served(), expected(&renamed));
}

#[test]
fn an_address_that_another_service_holds_is_refused() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let one = state(&[(1, &[1], &[1])]);
    step(&mut writer, &State::new(), &one);
    let changes = vec![(id(2), Some(wanted(&[1], &[2])))];
    announce(&mut writer.maps, &one, &one);
    let refused = writer.apply(changes);
    assert!(refused.len() == 1 && refused[0].message.contains("Service default/s1"), "{refused:?}");
    assert_eq!(writer.maps.served(), expected(&one));
    announce(&mut writer.maps, &one, &state(&[(2, &[1], &[2])]));
    assert!(writer.apply(vec![(id(1), None)]).is_empty(), "tried again when it is free");
    assert_eq!(writer.maps.served()[&key(1)], pods(&[2]));
}

/// The message of every refusal, by the Service's name.
fn messages(refused: &[Refused]) -> Vec<String> {
    refused.iter().map(|r| format!("{}: {}", r.id.service.name, r.message)).collect()
}

/// `state`, and service 9 that claims a ClusterIP's port as an external one.
fn with_external(state: &State, vips: &[u8], pods: &[u8], external: u8) -> State {
    let mut state = state.clone();
    state.extend(service(9, vips, pods));
    let wanted = state.get_mut(&id(9)).expect("just put");
    wanted.frontends.push(frontend(external, 80, FrontendKind::External));
    state
}

#[test]
fn a_cluster_ip_goes_before_a_mere_claim_to_it() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let claimed = with_external(&State::new(), &[9], &[9], 1);
    assert!(change(&mut writer, &State::new(), &claimed).is_empty(), "nobody else wants it");
    assert_eq!(writer.maps.served()[&key(1)], pods(&[9]));

    let both = with_external(&state(&[(1, &[1], &[1])]), &[9], &[9], 1);
    let refused = change(&mut writer, &claimed, &both);
    assert_eq!(messages(&refused), ["s9: 10.96.0.1:80/TCP belongs to Service default/s1"]);
    assert_eq!(writer.maps.served()[&key(1)], pods(&[1]), "its owner's");
    assert_eq!(writer.maps.served()[&key(9)], pods(&[9]), "the rest is served");
    assert_eq!(change(&mut writer, &both, &both).len(), 1, "it is said as long as it is so");

    assert!(change(&mut writer, &both, &claimed).is_empty());
    assert_eq!(writer.maps.served()[&key(1)], pods(&[9]), "who waited gets it");
    let none = State::new();
    assert!(change(&mut writer, &claimed, &none).is_empty());
    assert!(writer.maps.tables.frontends.is_empty());
}

#[test]
fn an_external_address_stays_with_the_first_until_that_goes() {
    let external = |n: u16, pod: u8| {
        let mut one: State = service(n, &[10 + u8::try_from(n).expect("few")], &[pod]).into();
        one.get_mut(&id(n)).expect("just put").frontends.push(frontend(
            200,
            80,
            FrontendKind::External,
        ));
        one
    };
    let all: State =
        external(2, 2).into_iter().chain(external(1, 1)).chain(external(3, 3)).collect();
    let mut writer = Writer::new(Model::new(AMPLE));
    let first = external(2, 2);
    assert!(change(&mut writer, &State::new(), &first).is_empty());
    assert_eq!(change(&mut writer, &first, &all).len(), 2);
    assert_eq!(writer.maps.served()[&key(200)], pods(&[2]), "who came first");
    let rest: State = external(1, 1).into_iter().chain(external(3, 3)).collect();
    assert_eq!(change(&mut writer, &all, &rest).len(), 1);
    assert_eq!(writer.maps.served()[&key(200)], pods(&[1]));
    let mut given_up = rest.clone();
    given_up.get_mut(&id(1)).expect("it is there").frontends.pop();
    assert!(change(&mut writer, &rest, &given_up).is_empty());
    assert_eq!(writer.maps.served()[&key(200)], pods(&[3]));
}

#[test]
fn of_two_that_come_at_once_one_is_served() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let both: State =
        [(1, 1), (2, 2)].into_iter().map(|(n, pod)| (id(n), wanted(&[1], &[pod]))).collect();
    assert_eq!(change(&mut writer, &State::new(), &both).len(), 1);
    assert_eq!(writer.maps.served()[&key(1)], pods(&[1]));
}

#[test]
fn what_does_not_fit_is_refused_whole_and_tried_again() {
    let mut writer = Writer::new(Model::new(Capacity { slots: 7, ..AMPLE }));
    let before = state(&[(1, &[1], &[1, 2, 3, 4]), (2, &[2], &[5])]);
    assert!(step(&mut writer, &State::new(), &before).is_empty());
    let after = state(&[(1, &[1, 3], &[1, 2, 3]), (2, &[2], &[5])]);
    assert_eq!(step(&mut writer, &before, &after), [id(1)].into(), "old and new do not fit");
    assert_eq!(writer.maps.served(), expected(&before), "nothing of it is done");
    let smaller = state(&[(1, &[1, 3], &[1, 2, 3])]);
    announce(&mut writer.maps, &before, &smaller);
    writer.apply(vec![(id(2), None)]);
    writer.apply(Vec::new());
    assert_eq!(writer.maps.served(), expected(&smaller), "done as soon as there is room");
}

#[test]
fn fragmentation_moves_runs_instead_of_refusing() {
    let mut writer = Writer::new(Model::new(Capacity { slots: 12, ..AMPLE }));
    let full = state(&[
        (1, &[1], &[1, 2]),
        (2, &[2], &[3, 4]),
        (3, &[3], &[5, 6]),
        (4, &[4], &[7, 8]),
        (5, &[5], &[9, 10]),
    ]);
    assert!(step(&mut writer, &State::new(), &full).is_empty());
    let holes = state(&[(2, &[2], &[3, 4]), (4, &[4], &[7, 8])]);
    assert!(step(&mut writer, &full, &holes).is_empty());
    let wide =
        state(&[(2, &[2], &[3, 4]), (4, &[4], &[7, 8]), (6, &[6], &[1, 2, 3, 4, 5, 6, 9, 10])]);
    assert!(step(&mut writer, &holes, &wide).is_empty(), "eight slots are free, not in a row");
    assert_eq!(writer.maps.served(), expected(&wide));
}

#[test]
fn an_unchanged_service_is_not_written() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let one = state(&[(1, &[1], &[1, 150, 250])]);
    step(&mut writer, &State::new(), &one);
    let writes = writer.maps.writes;
    writer.apply(vec![(id(1), Some(one[&id(1)].clone()))]);
    assert_eq!(writer.maps.writes, writes);
}

#[test]
fn a_restart_keeps_ids_and_writes_nothing() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let one = state(&[(1, &[1, 2], &[1, 2, 150, 250]), (2, &[3], &[1])]);
    step(&mut writer, &State::new(), &one);
    let before = writer.maps.tables.clone();
    let mut adopted = Writer::adopt(writer.maps).expect("the model can be read");
    let changes = one.iter().map(|(id, wanted)| (id.clone(), Some(wanted.clone()))).collect();
    assert!(adopted.apply(changes).is_empty());
    adopted.prune();
    assert_eq!(adopted.maps.tables.backends, before.backends);
    assert_eq!(adopted.maps.tables.services, before.services);
    assert_eq!(adopted.maps.tables.frontends, before.frontends);
}

#[test]
fn what_nobody_wants_after_a_restart_goes_only_when_pruned() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let both = state(&[(1, &[1], &[1]), (2, &[2], &[2])]);
    step(&mut writer, &State::new(), &both);
    let mut adopted = Writer::adopt(writer.maps).expect("the model can be read");
    let one = state(&[(1, &[1], &[1])]);
    let changes = one.iter().map(|(id, wanted)| (id.clone(), Some(wanted.clone())));
    adopted.apply(changes.collect());
    assert_eq!(adopted.maps.served(), expected(&both));
    announce(&mut adopted.maps, &both, &one);
    adopted.prune();
    assert_eq!(adopted.maps.served(), expected(&one));
    assert_eq!(adopted.maps.tables.frontends.len(), 2, "one port and its address");
}

/// What decides whether sockets are closed that were connected to `pod` by the frontend `vip`.
fn became(writer: &mut Writer<Model>, vip: u8, pod: u8) -> (Membership, bool) {
    let backend = pods(&[pod]).pop_first().expect("one endpoint");
    let membership = writer.membership(&DeadPeer { frontend: key(vip), backend });
    (membership, writer.pools.deaths.take())
}

#[test]
fn an_endpoint_that_leaves_the_list_dies_and_one_that_is_unselected_does_not() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let mut now = State::new();
    let mut go_to = |writer: &mut Writer<Model>, to: State| {
        assert_eq!(step(writer, &now, &to), BTreeSet::new());
        now = to;
    };
    go_to(&mut writer, state(&[(0, &[1], &[1, 2])]));
    assert_eq!(became(&mut writer, 1, 1), (Membership::Member, false), "it is there");
    let mut unselected = state(&[(0, &[1], &[1, 2])]);
    let first = &mut unselected.get_mut(&id(0)).expect("the service").backends[0];
    (first.cluster, first.local) = (false, false);
    go_to(&mut writer, unselected);
    assert_eq!(became(&mut writer, 1, 1), (Membership::Member, false), "it is not selected");
    go_to(&mut writer, state(&[(0, &[1], &[2])]));
    assert_eq!(became(&mut writer, 1, 1), (Membership::Absent, true), "it is gone");
    assert_eq!(became(&mut writer, 1, 2), (Membership::Member, false), "the other is there");
    go_to(&mut writer, state(&[(0, &[1], &[1, 2])]));
    assert_eq!(became(&mut writer, 1, 1), (Membership::Member, false), "it is back");
    go_to(&mut writer, State::new());
    assert_eq!(became(&mut writer, 1, 1), (Membership::NoService, true), "the service is gone");
}
