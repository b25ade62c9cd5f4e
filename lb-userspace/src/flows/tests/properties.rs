//! Packets and sweeps as chance wills, packets also between the steps of a sweep.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

/// What a connection has shown, and when last.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    last: u64,
    lifetime: Duration,
}

type Histories = Rc<RefCell<BTreeMap<Wanted, History>>>;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A packet of a client (or of a backend) with these flags, so many seconds after the last event.
    Packet { connection: Wanted, by_client: bool, flags: u8, after: u64 },
    /// A sweep, for lack of room or not.
    Sweep { pressed: bool },
    /// A program that was stopped half-way has left this entry alone.
    Lose { connection: Wanted, entry: usize },
}

fn connections() -> impl Strategy<Value = Wanted> {
    // Nobody changes the backend of a client: the choice is the client's number.
    (prop_oneof![Just(6_u8), Just(17_u8)], 1..8_u8, any::<bool>()).prop_map(
        |(protocol, client, masqueraded)| {
            let client = client + if masqueraded { 20 } else { 0 };
            Wanted { protocol, client, backend: client % 3, masqueraded }
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let flags = prop_oneof![
        4 => Just(ACK),
        3 => Just(SYN),
        2 => Just(SYN | ACK),
        1 => Just(FIN | ACK),
        1 => Just(RST),
    ];
    let after = prop_oneof![6 => 0..4_u64, 2 => 5..40_u64, 1 => 50..70_u64, 1 => 3590..3610_u64];
    let packet = (connections(), any::<bool>(), flags, after).prop_map(
        |(connection, by_client, flags, after)| Event::Packet {
            connection,
            by_client,
            flags: if connection.protocol == protocol::TCP { flags } else { 0 },
            after,
        },
    );
    let lose = (connections(), 0..4_usize)
        .prop_map(|(connection, entry)| Event::Lose { connection, entry });
    let event = prop_oneof![
        12 => packet,
        5 => any::<bool>().prop_map(|pressed| Event::Sweep { pressed }),
        1 => lose,
    ];
    prop::collection::vec(event, 1..120)
}

fn packet(
    model: &mut Model,
    histories: &Histories,
    connection: Wanted,
    by_client: bool,
    flags: u8,
) {
    let known = model.present(connection) == connection.entries(0).len();
    if by_client {
        model.request(connection, flags);
    } else if known {
        model.reply(connection, flags);
    }
    let mut histories = histories.borrow_mut();
    if model.present(connection) == connection.entries(0).len() {
        let lifetime = lifetime(model, connection);
        histories.insert(connection, History { last: model.now, lifetime });
    } else if by_client
        && model.entries.contains_key(&connection.request_key())
        && let Some(history) = histories.get_mut(&connection)
    {
        // The rest is being taken out, and will be put back.
        history.last = model.now;
    }
}

/// How long the connection may be idle by what the table holds, found in another way than by the code under test.
fn lifetime(model: &Model, connection: Wanted) -> Duration {
    if connection.protocol == protocol::UDP {
        return LIFETIMES.udp;
    }
    let entries = connection.entries(0);
    let flow = |n: usize| model.entries[&entries[n].key];
    let (request, reply) = (flow(entries.len() - 1), flow(usize::from(connection.masqueraded)));
    let (client, server) = (request.seen, reply.seen);
    match () {
        () if (client | server) & RST != 0 => LIFETIMES.closed,
        () if client & FIN != 0 && server & FIN != 0 => LIFETIMES.closed,
        () if reply.packets == 0 => LIFETIMES.opening,
        () if client & ACK == 0 && (client | server) & SYN != 0 => LIFETIMES.opening,
        () => LIFETIMES.established,
    }
}

/// A sweep, with these packets between its steps; then all that must hold.
fn check_sweep(
    model: &mut Model,
    histories: &Histories,
    pressed: bool,
    between: Vec<(Wanted, bool, u8)>,
) -> Result<(), TestCaseError> {
    let began = model.now;
    let before = histories.borrow().clone();
    let (mut between, told) = (between.into_iter(), Rc::clone(histories));
    model.meanwhile = Some(Box::new(move |model| {
        if let Some((connection, by_client, flags)) = between.next() {
            model.now += 1000;
            packet(model, &told, connection, by_client, flags);
        }
    }));
    model.had_no_room = false;
    let lack = Lack { room: pressed, ports: pressed };
    let tally = sweep(model, &LIFETIMES, began, lack).expect("the model's steps succeed");
    model.meanwhile = None;
    for (&connection, history) in histories.borrow_mut().iter_mut() {
        let (present, all) = (model.present(connection), connection.entries(0).len());
        if present == all {
            history.lifetime = lifetime(model, connection);
        }
        let used = before.get(&connection).is_none_or(|earlier| earlier.last != history.last);
        let idle = Duration::from_nanos(began.saturating_sub(history.last));
        let established = history.lifetime == LIFETIMES.established;
        let early = pressed && !established && idle >= Duration::from_secs(3);
        // Others may have taken the room of what was to be put back.
        let crowded = used && model.had_no_room;
        if idle < history.lifetime && !early && !crowded && tally.strays == 0 {
            prop_assert_eq!(present, all, "{:?} is in use: {:?}", connection, history);
        }
        if !used && idle >= history.lifetime && tally.strays == 0 {
            prop_assert_eq!(present, 0, "{:?} is over: {:?}", connection, history);
        }
        prop_assert!(present == all || present == 0 || tally.strays > 0, "half: {connection:?}");
    }
    histories.borrow_mut().retain(|connection, _| model.present(*connection) > 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_connection_in_use_loses_an_entry_and_none_that_is_over_keeps_one(
        events in events(),
        between in prop::collection::vec((connections(), any::<bool>(), Just(ACK)), 0..150),
        capacity in prop_oneof![Just(20_u32), Just(64)],
    ) {
        let mut model = Model::new(capacity);
        let histories = Histories::default();
        let mut between = between.into_iter();
        for event in events {
            match event {
                Event::Packet { connection, by_client, flags, after } => {
                    model.now += after * SECOND + 1;
                    packet(&mut model, &histories, connection, by_client, flags);
                }
                Event::Sweep { pressed } => {
                    let some = between.by_ref().take(12).collect();
                    check_sweep(&mut model, &histories, pressed, some)?;
                }
                Event::Lose { connection, entry } => {
                    let entries = connection.entries(0);
                    model.entries.remove(&entries[entry % entries.len()].key);
                    histories.borrow_mut().remove(&connection);
                }
            }
        }
        // In the end nothing remains, whatever it was.
        model.now += 3600 * SECOND;
        let tally = look(&mut model, false);
        prop_assert_eq!(tally.entries, 0);
        prop_assert!(model.entries.is_empty());
    }
}
