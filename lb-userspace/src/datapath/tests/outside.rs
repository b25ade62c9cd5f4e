//! What clients outside need: addresses that answer, ranges, tables, and where endpoints are.

use super::*;

/// Service `n` with the external address 10.96.0.200.
fn with_external_address(n: u16) -> State {
    let last = 10 + u8::try_from(n).expect("few");
    let mut state: State = service(n, &[last], &[1]).into();
    let addresses = state.get_mut(&part(n, Part::Addresses)).expect("just put");
    addresses.frontends.push(frontend(200, 0, FrontendKind::ExternalAddress));
    state
}

#[test]
fn an_external_address_itself_is_everybodys_and_nobody_is_refused() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let (first, second) = (with_external_address(1), with_external_address(2));
    let both: State = first.clone().into_iter().chain(second.clone()).collect();
    let address = FrontendKey::of_address(key(200).address);
    let holder = |writer: &Writer<Model>| {
        let entry = writer.maps.tables.frontends.get(&address)?;
        Some((entry.kind(), writer.owners[&entry.service()].service.name.to_string()))
    };
    let external = |name: &str| Some((EntryKind::ExternalAddress, name.to_owned()));
    assert!(change(&mut writer, &State::new(), &first).is_empty());
    assert!(change(&mut writer, &first, &both).is_empty(), "who waits is not refused");
    assert_eq!(holder(&writer), external("s1"));
    assert!(change(&mut writer, &both, &second).is_empty());
    assert_eq!(holder(&writer), external("s2"), "the next takes over");
    let mut owned = second.clone();
    owned.extend(service(3, &[200], &[3]));
    assert!(change(&mut writer, &second, &owned).is_empty());
    assert_eq!(holder(&writer), Some((EntryKind::Address, "s3".to_owned())), "by allocation");
    assert!(change(&mut writer, &owned, &second).is_empty());
    assert_eq!(holder(&writer), external("s2"));
    assert!(change(&mut writer, &second, &State::new()).is_empty());
    assert_eq!(holder(&writer), None);
}

#[test]
fn a_table_is_written_when_its_list_changes_and_only_then() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let spread = |pods: &[u8]| {
        let mut state = state(&[(1, &[1], pods)]);
        state.get_mut(&id(1)).expect("the service").maglev = true;
        state
    };
    let states =
        [State::new(), spread(&[1, 2]), spread(&[2, 3]), spread(&[2, 3, 250]), spread(&[])];
    for pair in states.windows(2) {
        assert!(step(&mut writer, &pair[0], &pair[1]).is_empty());
        assert_complete(&writer, &pair[1]);
    }
    let plain = state(&[(1, &[1], &[1])]);
    assert!(step(&mut writer, &states[4], &plain).is_empty());
    assert_complete(&writer, &plain);
    assert_eq!(writer.pools.tables.available(), (7, 1), "it waits for a grace period");

    assert!(step(&mut writer, &plain, &states[1]).is_empty());
    let (writes, spread) = (writer.maps.writes, writer.maps.spread.clone());
    let mut adopted = Writer::adopt(writer.maps).expect("the model can be read");
    announce(&mut adopted.maps, &states[1], &states[1]);
    adopted.apply(states[1].iter().map(|(id, w)| (id.clone(), Some(w.clone()))).collect());
    assert_complete(&adopted, &states[1]);
    assert_eq!(adopted.maps.spread, spread);
    assert_eq!(adopted.maps.writes, writes + 1, "the grace period; nothing is written");
}

#[test]
fn what_the_packet_path_has_no_room_for_is_refused_with_the_remedy() {
    let small = Capacity { ranges: 1, ..AMPLE };
    let mut writer = Writer::new(Model::new(small));
    let first = {
        let mut state = state(&[(1, &[1], &[1])]);
        let wanted = state.get_mut(&id(1)).expect("the service");
        wanted.policy.restricted = true;
        wanted.source_ranges = vec!["192.0.2.0/24".parse().expect("a range")];
        state
    };
    assert!(change(&mut writer, &State::new(), &first).is_empty());
    let mut both = first.clone();
    both.extend(service(2, &[2], &[2]));
    let wanted = both.get_mut(&id(2)).expect("just put");
    wanted.policy.restricted = true;
    wanted.source_ranges = vec!["198.51.100.0/24".parse().expect("a range")];
    let refused = change(&mut writer, &first, &both);
    let message = "restart the agent with --map-size SOURCE_RANGES=";
    assert!(refused.len() == 1 && refused[0].message.contains(message), "{refused:?}");
    assert!(!writer.maps.served().contains_key(&key(2)), "nothing of it is done");
    assert!(change(&mut writer, &both, &first).is_empty());
    assert_complete(&writer, &first);
}

#[test]
fn who_finds_no_table_is_served_without_and_gets_the_next_that_is_free() {
    let mut writer = Writer::new(Model::new(Capacity { tables: 2, ..AMPLE }));
    let spread = |numbers: &[u8]| {
        let mut state = State::new();
        for &n in numbers {
            state.extend(service(n.into(), &[n], &[n, n + 100]));
            state.get_mut(&id(n.into())).expect("just put").maglev = true;
        }
        state
    };
    let states = [&[][..], &[1, 2, 3], &[1, 2, 3, 4], &[2, 3, 4], &[4], &[]].map(spread);
    for pair in states.windows(2) {
        assert!(change(&mut writer, &pair[0], &pair[1]).is_empty(), "nobody is refused");
        assert_eq!(writer.maps.served(), expected(&pair[1]));
        assert_complete(&writer, &pair[1]);
    }
    assert!(change(&mut writer, &states[0], &states[2]).is_empty());
    let limit = writer.limit().expect("two lack a table");
    assert!(
        limit.contains("2 ports of Services") && limit.contains("--map-size MAGLEV=4"),
        "{limit}"
    );
}

#[test]
fn an_endpoint_that_comes_here_from_another_node_gets_another_id_and_no_socket_is_closed() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let before = state(&[(0, &[1], &[1])]);
    let mut after = before.clone();
    after.get_mut(&id(0)).expect("the service").backends[0].here ^= true;
    step(&mut writer, &State::new(), &before);
    let old = writer.maps.slot(writer.services[&id(0)].set.cluster.first);
    step(&mut writer, &before, &after);
    let new = writer.maps.slot(writer.services[&id(0)].set.cluster.first);
    assert_ne!(old, new);
    assert_eq!(
        (writer.maps.backend(old).life().present, writer.maps.backend(new).here),
        (false, 0)
    );
    assert_eq!(became(&mut writer, 1, 1).0, Membership::Member, "the endpoint is there");
}

/// Service 1, which a load balancer's address leads to from these ranges; all if there are none.
fn balanced(ranges: &[&str]) -> State {
    let mut state = state(&[(1, &[1], &[1])]);
    let wanted = state.get_mut(&id(1)).expect("the service");
    wanted.frontends.push(frontend(200, 80, FrontendKind::LoadBalancer));
    wanted.policy.restricted = !ranges.is_empty();
    wanted.source_ranges = ranges.iter().map(|range| range.parse().expect("a range")).collect();
    state
}

#[test]
fn ranges_change_without_turning_away_whom_both_let_in() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let states = [
        State::new(),
        balanced(&["192.0.2.0/24", "198.51.100.0/24"]),
        balanced(&["192.0.2.1/32"]),
        balanced(&[]),
        balanced(&["192.0.2.0/24"]),
        state(&[(1, &[1], &[1])]),
        State::new(),
    ];
    for pair in states.windows(2) {
        // What was right before the last change is so no more.
        writer.grace().expect("the model's grace period");
        assert!(change(&mut writer, &pair[0], &pair[1]).is_empty());
        assert_complete(&writer, &pair[1]);
    }
}

#[test]
fn flows_look_again_after_a_frontend_was_moved_dropped_or_narrowed_and_only_then() {
    let mut writer = Writer::new(Model::new(AMPLE));
    let open = balanced(&[]);
    let mut more = open.clone();
    more.extend(service(2, &[2], &[2]));
    let mut scaled = more.clone();
    scaled.insert(id(2), wanted(&[2], &[3, 4]));
    let mut local = scaled.clone();
    local.get_mut(&id(2)).expect("the service").policy.internal_local = true;
    let mut cluster = local.clone();
    cluster.get_mut(&id(2)).expect("the service").policy.internal_local = false;
    let moved = state(&[(1, &[2], &[1]), (2, &[1], &[3, 4])]);
    let mut present = State::new();
    for (what, next, looks) in [
        ("a Service comes", open.clone(), false),
        ("ranges come", balanced(&["192.0.2.0/24", "198.51.100.0/24"]), true),
        ("a range goes", balanced(&["192.0.2.0/24"]), true),
        ("ranges go", open, true),
        ("another Service comes", more, false),
        ("endpoints change", scaled, false),
        ("a policy narrows", local, true),
        ("a policy widens", cluster, false),
        ("frontends move", moved, true),
        ("frontends go", State::new(), true),
    ] {
        let (before, graces) = (writer.maps.tables.node.revision, writer.maps.graces);
        assert!(change(&mut writer, &present, &next).is_empty(), "{what}");
        present = next;
        let looked = writer.maps.tables.node.revision != before;
        assert_eq!(looked, looks, "{what}");
        assert!(
            !looks || writer.maps.graces > graces,
            "{what}: programs that have found it end first"
        );
    }
}
