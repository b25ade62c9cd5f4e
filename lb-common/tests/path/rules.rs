//! What a Service's own rules make of a call: affinity, policies, kinds of frontends, opting out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::abi::{FrontendKey, FrontendKind, Life, Policy, Run};
use lb_common::path::socket::{bind, connect, receive, send};
use lb_common::path::{Action, Errno, Reason};
use lb_common::sim::{Caller, Memory};

use crate::fixture::{Fixture, POD, address, ip, target, tcp, udp};

/// A caller in the node's own network namespace.
const NODE: Caller = Caller { netns: 1, exempt: false, own: false };
const SECOND: u64 = 1_000_000_000;
const PODS: [(&str, u16); 4] =
    [("10.244.0.1", 80), ("10.244.0.2", 80), ("10.244.0.3", 80), ("10.244.0.4", 80)];

fn connect_as(fixture: &Fixture, caller: Caller, to: FrontendKey) -> IpAddr {
    target(&connect(&fixture.0, &caller, &mut Memory::default(), &to)).0
}

fn sticky(seconds: u32) -> Fixture {
    let mut fixture = Fixture::new().service(1, tcp("10.96.0.1", 80), &PODS);
    fixture.set_policy(1, Policy { affinity_seconds: seconds, ..Policy::default() });
    fixture
}

/// Takes a backend of service 1 out of its set.
fn deselect(fixture: &mut Fixture, gone: IpAddr) {
    let ids: Vec<u32> = (10..14).collect();
    let of = |id: &u32| IpAddr::from(fixture.0.backends[id].address);
    let (gone, rest): (Vec<u32>, Vec<u32>) = ids.into_iter().partition(|id| of(id) == gone);
    fixture.set_selected(gone[0], false);
    for (slot, id) in (200..).zip(&rest) {
        fixture.0.runs.insert(slot, *id);
    }
    let count = u32::try_from(rest.len()).expect("few");
    fixture.set_run(1, Run { first: 200, count, generation: 2 });
}

#[test]
fn a_client_keeps_its_backend_and_others_get_their_own() {
    let fixture = sticky(10);
    let vip = tcp("10.96.0.1", 80);
    let mut seen = BTreeSet::new();
    for netns in 10..60 {
        let client = Caller { netns, exempt: false, own: false };
        let first = connect_as(&fixture, client, vip);
        assert!((0..20).all(|_| connect_as(&fixture, client, vip) == first), "client {netns}");
        seen.insert(first);
    }
    assert_eq!(seen.len(), 4, "fifty clients use every backend");
}

#[test]
fn affinity_runs_out_after_its_last_use() {
    let fixture = sticky(10);
    let vip = tcp("10.96.0.1", 80);
    let first = connect_as(&fixture, POD, vip);
    for step in 1..10 {
        fixture.0.clock.set(1 + step * 9 * SECOND);
        assert_eq!(connect_as(&fixture, POD, vip), first, "each use counts anew");
    }
    let mut after = BTreeSet::new();
    for step in 1..40 {
        fixture.0.clock.set(1000 * SECOND + step * 11 * SECOND);
        after.insert(connect_as(&fixture, POD, vip));
    }
    assert!(after.len() > 1, "a new choice after each pause of eleven seconds: {after:?}");
}

#[test]
fn a_backend_that_left_is_replaced_and_the_new_one_kept() {
    let mut fixture = sticky(10);
    let vip = tcp("10.96.0.1", 80);
    let first = connect_as(&fixture, POD, vip);
    deselect(&mut fixture, first);
    let second = connect_as(&fixture, POD, vip);
    assert_ne!(first, second);
    assert!((0..20).all(|_| connect_as(&fixture, POD, vip) == second));
}

#[test]
fn a_recycled_id_or_element_is_no_affinity() {
    let fixture = sticky(10).service(2, tcp("10.96.0.2", 80), &[("10.244.9.1", 80)]);
    let vip = tcp("10.96.0.1", 80);
    connect_as(&fixture, POD, vip);
    let mut entries = fixture.0.affinity.borrow_mut();
    let element = entries.values_mut().next().expect("the client is known");
    element.backend = lb_common::abi::Affinity::word(20, 1);
    drop(entries);
    assert_ne!(connect_as(&fixture, POD, vip), ip("10.244.9.1"), "a backend of another service");

    let mut fixture = fixture;
    let before = connect_as(&fixture, POD, vip);
    let id = (10..14).find(|id| IpAddr::from(fixture.0.backends[id].address) == before);
    let backend = fixture.0.backends.get_mut(&id.expect("one of four")).expect("it exists");
    backend.life = Life { generation: 2, ..backend.life() }.to_word();
    let now = connect_as(&fixture, POD, vip);
    assert!((0..20).all(|_| connect_as(&fixture, POD, vip) == now), "noted anew");
}

#[test]
fn without_room_a_client_is_served_without_affinity() {
    let mut fixture = sticky(10);
    fixture.0.affinity_room = false;
    let vip = tcp("10.96.0.1", 80);
    let seen: BTreeSet<_> = (0..50).map(|_| connect_as(&fixture, POD, vip)).collect();
    assert!(seen.len() > 1);
}

#[test]
fn affinity_gives_way_where_replies_could_not_be_told_apart() {
    let pods = [("10.244.0.1", 53), ("10.244.0.2", 53)];
    let mut fixture = Fixture::new().service(1, udp("10.96.0.1", 53), &pods).service(
        2,
        udp("10.96.0.2", 53),
        &pods,
    );
    for service in [1, 2] {
        fixture.set_policy(service, Policy { affinity_seconds: 10, ..Policy::default() });
    }
    for netns in 1..50 {
        let client = Caller { netns, exempt: false, own: false };
        let mut memory = Memory::default();
        let first = send(&fixture.0, &client, &mut memory, &udp("10.96.0.1", 53));
        let second = send(&fixture.0, &client, &mut memory, &udp("10.96.0.2", 53));
        assert_ne!(target(&first), target(&second));
        let shown = receive(&mut memory, first.address, first.port);
        assert_eq!(target(&shown).0, ip("10.96.0.1"));
    }
}

#[test]
fn each_kind_of_frontend_takes_the_list_of_its_policy() {
    let rows = [
        (FrontendKind::ClusterIp, false, false, 4),
        (FrontendKind::ClusterIp, true, false, 1),
        (FrontendKind::ClusterIp, false, true, 4),
        (FrontendKind::NodePort, true, true, 4),
        (FrontendKind::External, true, true, 4),
    ];
    for (kind, internal_local, external_local, expected) in rows {
        let mut fixture = Fixture::new().service(1, tcp("192.0.2.1", 80), &PODS);
        fixture.0.put(tcp("192.0.2.1", 80), kind, 1);
        let service = fixture.0.services.get_mut(&1).expect("the fixture has it");
        service.local = Run { first: 100, count: 1, generation: 1 }.to_word();
        fixture.set_policy(
            1,
            Policy { affinity_seconds: 0, internal_local, external_local, ..Policy::default() },
        );
        let vip = tcp("192.0.2.1", 80);
        let seen: BTreeSet<_> = (0..100).map(|_| connect_as(&fixture, POD, vip)).collect();
        assert_eq!(seen.len(), expected, "{kind:?}, {internal_local}, {external_local}");
    }
}

/// NodePort 30080 on 192.0.2.1, on loopback in both families, and its guard.
fn node_port() -> Fixture {
    let mut fixture = Fixture::new().service(1, tcp("10.96.0.1", 80), &PODS);
    fixture.0.node.netns_cookie = 1;
    for place in ["192.0.2.1", "127.0.0.1", "::1", "0.0.0.0", "::"] {
        fixture.0.put(tcp(place, 30080), FrontendKind::NodePort, 1);
    }
    fixture
}

#[test]
fn loopback_node_ports_are_the_nodes_own() {
    let fixture = node_port();
    for place in ["127.0.0.1", "127.0.0.5", "0.0.0.0", "::1", "::"] {
        let mut memory = Memory::default();
        let node = connect(&fixture.0, &NODE, &mut memory, &tcp(place, 30080));
        assert_eq!(node.reason, Reason::Translated, "{place} from the node");
        let pod = connect(&fixture.0, &POD, &mut memory, &tcp(place, 30080));
        assert_eq!(pod.reason, Reason::NotService, "{place} from a pod: it reaches itself");
        let other = connect(&fixture.0, &NODE, &mut memory, &tcp(place, 22));
        assert_eq!(other.reason, Reason::NotService, "{place}: another port");
        let udp = connect(&fixture.0, &NODE, &mut memory, &udp(place, 30080));
        assert_eq!(udp.reason, Reason::NotService, "{place}: another protocol");
    }
    for caller in [NODE, POD] {
        let verdict =
            connect(&fixture.0, &caller, &mut Memory::default(), &tcp("192.0.2.1", 30080));
        assert_eq!(verdict.reason, Reason::Translated, "the node's address from anywhere");
    }
}

#[test]
fn a_namespace_without_a_cookie_has_no_loopback_node_ports() {
    let mut fixture = node_port();
    fixture.0.node.netns_cookie = 0;
    let nobody = Caller { netns: 0, exempt: false, own: false };
    let verdict = connect(&fixture.0, &nobody, &mut Memory::default(), &tcp("127.0.0.1", 30080));
    assert_eq!(verdict.reason, Reason::NotService);
}

#[test]
fn binding_a_node_port_is_refused_on_the_node_alone() {
    let mut fixture = node_port();
    fixture.0.put(tcp("192.0.2.9", 443), FrontendKind::External, 1);
    let taken = ["192.0.2.1", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"];
    for place in taken {
        let verdict = bind(&fixture.0, &NODE, &tcp(place, 30080));
        assert_eq!(verdict.reason.action(), Action::Refuse(Errno::AddressInUse), "{place}");
        assert_eq!(bind(&fixture.0, &POD, &tcp(place, 30080)).reason, Reason::NotService);
    }
    let free = [
        tcp("192.0.2.2", 30080),
        tcp("0.0.0.0", 30081),
        udp("0.0.0.0", 30080),
        tcp("192.0.2.9", 443),
    ];
    for wanted in free {
        assert_eq!(bind(&fixture.0, &NODE, &wanted).reason, Reason::NotService, "{wanted:?}");
    }
    fixture.0.node.exempt = 1;
    let exempt = Caller { exempt: true, ..NODE };
    let left_alone = bind(&fixture.0, &exempt, &tcp("127.0.0.1", 30080)).reason;
    assert_eq!((left_alone, left_alone.action()), (Reason::Exempt, Action::Pass));
    let mut v4_only = node_port();
    v4_only.0.frontends.remove(&tcp("::", 30080));
    assert_eq!(bind(&v4_only.0, &NODE, &tcp("::", 30080)).reason, Reason::NodePort);
}

#[test]
fn binding_a_port_of_packets_to_endpoints_elsewhere_is_refused_on_the_node_alone() {
    let mut fixture = node_port();
    let reason = |fixture: &Fixture, caller: &Caller, port| {
        let wanted = ["0.0.0.0", "::", "127.0.0.1", "192.0.2.1", "2001:db8::1"];
        let wanted = wanted.iter().flat_map(|place| [tcp(place, port), udp(place, port)]);
        let reasons: BTreeSet<_> =
            wanted.map(|wanted| bind(&fixture.0, caller, &wanted).reason).collect();
        assert_eq!(reasons.len(), 1, "every address, both protocols: {reasons:?}");
        reasons.into_iter().next().expect("one")
    };
    assert_eq!(reason(&fixture, &NODE, 50_000), Reason::NotService, "there are none");
    (fixture.0.node.snat_first, fixture.0.node.snat_count) = (49_152, 16_384);
    for port in [49_152, 50_000, 65_535] {
        let reason_of = |caller| reason(&fixture, caller, port);
        let refused = reason_of(&NODE);
        let action = Action::Refuse(Errno::AddressInUse);
        assert_eq!((refused, refused.action()), (Reason::SnatPort, action), "{port}");
        assert_eq!(reason_of(&POD), Reason::NotService, "{port} from a pod");
    }
    for port in [0, 1, 49_151] {
        assert_eq!(reason(&fixture, &NODE, port), Reason::NotService, "{port}");
    }
    fixture.0.node.exempt = 1;
    let exempt = Caller { exempt: true, ..NODE };
    assert_eq!(reason(&fixture, &exempt, 50_000), Reason::Exempt);
}

#[test]
fn workloads_and_services_that_are_left_alone_pass() {
    let mut fixture = Fixture::new().service(1, tcp("10.96.0.1", 80), &PODS);
    let foreign = FrontendKey::of_address(address("10.96.0.7"));
    fixture.0.put(foreign, FrontendKind::Foreign, 0);
    let mut memory = Memory::default();
    for port in [80, 81] {
        let verdict = connect(&fixture.0, &POD, &mut memory, &tcp("10.96.0.7", port));
        assert_eq!(verdict.reason, Reason::NotService, "a ClusterIP of another proxy");
    }
    let exempt = Caller { exempt: true, ..POD };
    let destinations = [tcp("10.96.0.1", 80), tcp("10.96.0.1", 81), tcp("10.96.9.9", 80)]
        .map(|to| (to, Reason::Exempt));
    for (to, reason) in destinations {
        let unasked = connect(&fixture.0, &exempt, &mut memory, &to);
        assert_ne!(unasked.reason, reason, "nobody is exempt while the set is empty");
    }
    fixture.0.node.exempt = 1;
    connect(&fixture.0, &POD, &mut memory, &tcp("10.96.0.1", 80));
    for (to, reason) in destinations {
        let verdict = connect(&fixture.0, &exempt, &mut memory, &to);
        assert_eq!((verdict.reason, verdict.reason.action()), (reason, Action::Pass), "{to:?}");
        assert!(memory.first.is_none(), "a peer of before is forgotten");
    }
    let direct = connect(&fixture.0, &exempt, &mut memory, &tcp("10.244.0.1", 80));
    assert_eq!(direct.reason, Reason::NotService);
}

#[test]
fn the_agents_own_sockets_pass_wherever_others_are_translated_or_refused() {
    let fixture = Fixture::new()
        .service(1, tcp("10.96.0.1", 53), &PODS)
        .service(2, udp("10.96.0.2", 53), &[("10.244.0.1", 53)])
        .service(3, udp("10.96.0.3", 53), &[]);
    let own = Caller { own: true, ..POD };
    let rows = [
        ("a service", tcp("10.96.0.1", 53), Reason::Exempt),
        ("a service, by UDP", udp("10.96.0.2", 53), Reason::Exempt),
        ("a service without endpoints", udp("10.96.0.3", 53), Reason::Exempt),
        ("a port that nobody has", tcp("10.96.0.1", 54), Reason::Exempt),
        ("an address that nobody has", udp("10.96.9.9", 53), Reason::Exempt),
        ("a pod", udp("10.244.0.1", 53), Reason::NotService),
    ];
    for (what, to, reason) in rows {
        let calls = [
            ("connect", connect(&fixture.0, &own, &mut Memory::default(), &to)),
            ("send", send(&fixture.0, &own, &mut Memory::default(), &to)),
        ];
        for (call, verdict) in calls {
            assert_eq!(
                (verdict.reason, verdict.reason.action()),
                (reason, Action::Pass),
                "{call} to {what}"
            );
        }
        let other = connect(&fixture.0, &POD, &mut Memory::default(), &to).reason;
        assert_ne!(other, Reason::Exempt, "{what} for anybody else");
    }
}
