//! Random states, scarce pools, disputed frontends, failing calls and crashes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use lb_common::abi::{Address, FrontendKey};
use proptest::prelude::*;

use super::*;
use crate::datapath::Change;

/// What a Service is to clients outside.
#[derive(Clone, Debug)]
struct Outside {
    /// An address for them, beside its ClusterIPs.
    kind: Option<FrontendKind>,
    /// Who may come by a load balancer.
    source_ranges: Vec<IpNet>,
    maglev: bool,
    /// Its endpoints have gone over to another node.
    moved: bool,
}

const RANGES: [&str; 4] = ["192.0.2.0/24", "192.0.2.1/32", "198.51.100.0/24", "0.0.0.0/0"];

fn outside() -> impl Strategy<Value = Outside> {
    let kind = prop_oneof![
        Just(None),
        Just(Some(FrontendKind::External)),
        Just(Some(FrontendKind::LoadBalancer)),
        Just(Some(FrontendKind::LoadBalancer)),
    ];
    let ranges = prop::sample::subsequence(RANGES.to_vec(), 0..=2);
    (kind, ranges, any::<[bool; 2]>()).prop_map(|(kind, ranges, [maglev, moved])| {
        let source_ranges = ranges.iter().map(|range| range.parse().expect("a range")).collect();
        Outside { kind, source_ranges, maglev, moved }
    })
}

impl Outside {
    /// Adds it to service `n` of the state, whose first address is `vip`.
    fn add_to(self, state: &mut State, n: u16, vip: u8) {
        let wanted = state.get_mut(&id(n)).expect("the service");
        wanted.maglev = self.maglev;
        wanted.policy.restricted = !self.source_ranges.is_empty();
        wanted.source_ranges = self.source_ranges;
        wanted.backends.iter_mut().for_each(|backend| backend.here ^= self.moved);
        if let Some(kind) = self.kind {
            wanted.frontends.push(frontend(100 + vip, 80, kind));
            let addresses = state.get_mut(&part(n, Part::Addresses)).expect("the service");
            addresses.frontends.push(frontend(100 + vip, 0, FrontendKind::ExternalAddress));
        }
    }
}

/// States of up to five services over eight addresses, each with some of nine pods, by one policy or
/// the other, and reached from outside or not.
fn states() -> impl Strategy<Value = Vec<State>> {
    let one = (
        prop::collection::btree_set(1..9_u8, 1..3),
        prop::collection::btree_set(prop_oneof![1..7_u8, Just(150), Just(250)], 0..6),
        any::<bool>(),
        outside(),
    );
    let state = prop::collection::btree_map(1..6_u16, one, 0..5).prop_map(|services| {
        let mut taken = BTreeSet::new();
        let mut state = State::new();
        for (n, (vips, pods, internal_local, outside)) in services {
            let vips: Vec<u8> = vips.into_iter().filter(|vip| taken.insert(*vip)).collect();
            if !vips.is_empty() {
                state.extend(service(n, &vips, &pods.into_iter().collect::<Vec<_>>()));
                state.get_mut(&id(n)).expect("just put").policy.internal_local = internal_local;
                outside.add_to(&mut state, n, vips[0]);
            }
        }
        state
    });
    prop::collection::vec(state, 1..7)
}

/// Walks through the states; what each ended in, refused changes left out.
fn walk(writer: &mut Writer<Model>, states: &[State]) -> State {
    let mut now = State::new();
    for next in states {
        let refused = step(writer, &now, next);
        let mut reached = next.clone();
        for id in refused {
            match now.get(&id) {
                Some(old) => drop(reached.insert(id, old.clone())),
                None => drop(reached.remove(&id)),
            }
        }
        now = reached;
    }
    now
}

/// Some claims of services to addresses of others: a service's number, and an address.
type Claims = Vec<(u16, u8)>;

fn claims() -> impl Strategy<Value = Claims> {
    prop::collection::vec((1..6_u16, 1..12_u8), 0..12)
}

/// The state, its services claiming these addresses besides.
fn disputed(state: &State, claims: &Claims) -> State {
    let mut state = state.clone();
    // External addresses take the cluster list: here it is everybody's.
    state.values_mut().for_each(|wanted| wanted.policy.internal_local = false);
    for (n, vip) in claims {
        let external = frontend(*vip, 80, FrontendKind::External);
        if let Some(wanted) = state.get_mut(&id(*n))
            && wanted.frontends.iter().all(|f| f.address != external.address)
        {
            wanted.frontends.push(external);
            let addresses = state.get_mut(&part(*n, Part::Addresses)).expect("the service");
            addresses.frontends.push(frontend(*vip, 0, FrontendKind::ExternalAddress));
        }
    }
    state
}

/// Each frontend is served by one of those who claim it, by its owner if it is allocated; who waits
/// is named, and nothing else is served.
fn assert_settled(writer: &Writer<Model>, state: &State, refused: &[Refused]) {
    let losers: BTreeSet<_> = refused.iter().map(|refused| &refused.id).collect();
    assert!(refused.iter().all(|refused| !refused.message.is_empty()), "{refused:?}");
    let served = writer.maps.served();
    let keys: BTreeSet<FrontendKey> = state.values().flat_map(frontends).collect();
    assert_eq!(served.len(), keys.len(), "nothing else is served");
    for key in keys {
        let claimants: Vec<_> =
            state.iter().filter(|(_, w)| frontends(w).any(|k| k == key)).collect();
        let serves = |wanted: &Wanted| selected(wanted).eq(served[&key].iter().copied());
        assert!(claimants.iter().any(|(_, w)| serves(w)), "{key:?} leads to {:?}", served[&key]);
        let losing = claimants.iter().filter(|(id, _)| losers.contains(id)).count();
        assert!(losing + 1 >= claimants.len(), "{key:?}: who waits is named");
        let owns = |wanted: &Wanted| {
            let mut own = wanted.frontends.iter().filter(|f| f.kind == FrontendKind::ClusterIp);
            own.any(|f| Address::from(f.address) == key.address)
        };
        if let Some((_, owner)) = claimants.iter().find(|(_, wanted)| owns(wanted)) {
            assert!(serves(owner), "{key:?}: its owner's");
        }
    }
    assert_addresses_settled(writer, state, refused);
}

/// Each address answers to ping, a ClusterIP refuses its other ports, and nobody is told that another
/// Service has an address, too.
fn assert_addresses_settled(writer: &Writer<Model>, state: &State, refused: &[Refused]) {
    let ports_only = |refused: &Refused| refused.id.part != Part::Addresses;
    assert!(refused.iter().all(ports_only), "{refused:?}");
    let mut kinds: BTreeMap<FrontendKey, FrontendKind> = BTreeMap::new();
    for (id, wanted) in state.iter().filter(|(id, _)| id.part == Part::Addresses) {
        for (key, kind) in keys(id, wanted) {
            let best = kinds.entry(key).or_insert(kind);
            *best = (*best).min(kind);
        }
    }
    for (key, kind) in kinds {
        assert_eq!(writer.maps.tables.frontends[&key].kind(), kind, "{key:?}");
    }
}

/// Goes through the states, whatever is refused; the last one.
fn pass_through(writer: &mut Writer<Model>, states: &[State]) -> State {
    let mut now = State::new();
    for next in states {
        change(writer, &now, next);
        now.clone_from(next);
    }
    now
}

/// Applies every part of both states, changed or not.
fn apply_all(writer: &mut Writer<Model>, from: &State, to: &State) {
    let ids: BTreeSet<&ServicePortId> = from.keys().chain(to.keys()).collect();
    let changes = ids.into_iter().map(|id| (id.clone(), to.get(id).cloned()));
    writer.apply(changes.collect());
}

/// Applies `to` while the system call of this number fails; whether there were not so many.
fn fail_once(writer: &mut Writer<Model>, from: &State, to: &State, fail: usize) -> bool {
    writer.maps.fail_at = Some(fail);
    announce(&mut writer.maps, from, to);
    writer.maps.steady.clear();
    apply_all(writer, from, to);
    writer.maps.fail_at.take().is_some()
}

fn all(state: &State) -> Vec<Change> {
    state.iter().map(|(id, wanted)| (id.clone(), Some(wanted.clone()))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The model looks at every single write.
    #[test]
    fn every_prefix_of_every_batch_is_legal(states in states()) {
        let mut writer = Writer::new(Model::new(AMPLE));
        let reached = walk(&mut writer, &states);
        prop_assert_eq!(writer.maps.served(), expected(&reached));
        prop_assert_eq!(&reached, states.last().expect("at least one"));
        assert_complete(&writer, &reached);
    }

    /// Whatever the writer refuses for want of room, what it serves is legal.
    #[test]
    fn short_pools_refuse_and_never_mix_services(states in states()) {
        let mut writer = Writer::new(Model::new(SMALL));
        // A change that is refused and succeeds later has no place in the plain expectation:
        // the model's own checks are the test.
        for pair in states.windows(2) {
            for (from, to) in states.iter().flat_map(|s| states.iter().map(move |t| (s, t))) {
                announce(&mut writer.maps, from, to);
            }
            writer.maps.announced = writer.maps.allowed.clone();
            writer.maps.announced_just = writer.maps.just.clone();
            writer.maps.announced_listed = writer.maps.listed.clone();
            writer.maps.steady.clear();
            apply_all(&mut writer, &pair[0], &pair[1]);
        }
    }

    /// Services that claim what others have: one of them gets it, and whoever waits is named.
    #[test]
    fn disputed_frontends_are_served_by_one_of_those_who_claim_them(
        states in states(), claims in claims(),
    ) {
        let mut writer = Writer::new(Model::new(AMPLE));
        let mut now = State::new();
        for next in states.iter().map(|state| disputed(state, &claims)) {
            let refused = change(&mut writer, &now, &next);
            assert_settled(&writer, &next, &refused);
            now = next;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// One system call fails, each in turn: the next batch repairs it.
    #[test]
    fn a_failed_call_is_repaired(states in states()) {
        let (last, earlier) = states.split_last().expect("at least one");
        for fail in 0.. {
            let mut writer = Writer::new(Model::new(AMPLE));
            let before = walk(&mut writer, earlier);
            let was_the_last = fail_once(&mut writer, &before, last, fail);
            prop_assert!(writer.apply(Vec::new()).is_empty(), "call {} failed", fail);
            prop_assert_eq!(writer.maps.served(), expected(last), "call {} failed", fail);
            assert_complete(&writer, last);
            if was_the_last {
                break;
            }
        }
    }

    /// The agent dies after a write, each in turn; the next one reads the maps and finishes.
    #[test]
    fn a_new_agent_goes_on_from_any_crash(states in states()) {
        let (last, earlier) = states.split_last().expect("at least one");
        for crash in 0.. {
            let mut writer = Writer::new(Model::new(AMPLE));
            let before = walk(&mut writer, earlier);
            let crash_at = writer.maps.writes + crash;
            writer.maps.crash_at = Some(crash_at);
            step(&mut writer, &before, last);
            let was_the_last = writer.maps.writes < crash_at;

            let mut maps = writer.maps;
            maps.crash_at = None;
            let mut next = Writer::adopt(maps).expect("the model can be read");
            announce(&mut next.maps, &before, last);
            let refused = next.apply(all(last));
            let unread = |refused: &Refused| refused.message.ends_with("has not been read yet");
            prop_assert!(refused.iter().all(unread), "dead after {} writes: {:?}", crash, refused);
            next.prune();
            prop_assert!(next.apply(Vec::new()).is_empty(), "dead after {} writes", crash);
            prop_assert_eq!(next.maps.served(), expected(last), "dead after {} writes", crash);
            assert_complete(&next, last);
            let ports = expected(last).len();
            prop_assert_eq!(next.maps.tables.frontends.len(), 2 * ports, "ports and addresses");
            if was_the_last {
                break;
            }
        }
    }

    /// The same where frontends are disputed.
    #[test]
    fn disputes_outlive_failed_calls(states in states(), claims in claims()) {
        let states: Vec<State> = states.iter().map(|state| disputed(state, &claims)).collect();
        let (last, earlier) = states.split_last().expect("at least one");
        for fail in 0.. {
            let mut writer = Writer::new(Model::new(AMPLE));
            let before = pass_through(&mut writer, earlier);
            let was_the_last = fail_once(&mut writer, &before, last, fail);
            let refused = writer.apply(Vec::new());
            assert_settled(&writer, last, &refused);
            if was_the_last {
                break;
            }
        }
    }

    /// A new agent gives what it finds to nobody who merely claims it before its owner was read.
    #[test]
    fn disputes_outlive_the_agent(states in states(), claims in claims(), order: u64) {
        let states: Vec<State> = states.iter().map(|state| disputed(state, &claims)).collect();
        let mut writer = Writer::new(Model::new(AMPLE));
        let now = pass_through(&mut writer, &states);
        let before = writer.maps.served();
        let mut next = Writer::adopt(writer.maps).expect("the model can be read");
        announce(&mut next.maps, &now, &now);
        let mut changes = all(&now);
        fastrand::Rng::with_seed(order).shuffle(&mut changes);
        for change in changes {
            next.apply(vec![change]);
            prop_assert_eq!(next.maps.served(), before.clone(), "each is served as it was");
        }
        next.prune();
        let refused = next.apply(Vec::new());
        assert_settled(&next, &now, &refused);
        prop_assert_eq!(next.maps.served(), before);
    }
}
