//! Collection against a model of the table whose programs are at work between any two steps.

mod model;
mod properties;

use std::time::Duration;

use lb_common::abi::protocol;

use self::model::{Model, SECOND, START, Wanted, tcp};
use super::{Lack, Lifetimes, Tally, sweep};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const LIFETIMES: Lifetimes = Lifetimes {
    established: Duration::from_secs(3600),
    opening: Duration::from_secs(60),
    closed: Duration::from_secs(10),
    udp: Duration::from_secs(30),
};

fn look(model: &mut Model, pressed: bool) -> Tally {
    let now = model.now;
    let lack = Lack { room: pressed, ..Lack::default() };
    sweep(model, &LIFETIMES, now, lack).expect("the model's steps succeed")
}

/// A handshake.
fn connect(model: &mut Model, wanted: Wanted) {
    model.request(wanted, SYN);
    model.reply(wanted, SYN | ACK);
    model.request(wanted, ACK);
}

fn udp(client: u8, masqueraded: bool) -> Wanted {
    Wanted { protocol: protocol::UDP, ..tcp(client, 1, masqueraded) }
}

/// The same, with and without the node standing in for the client.
fn both(check: impl Fn(bool)) {
    [false, true].into_iter().for_each(check);
}

#[test]
fn each_connection_goes_whole_when_its_lifetime_is_over() {
    both(|masqueraded| {
        let mut model = Model::new(100);
        let wanted = [1, 2, 3, 4, 5].map(|client| tcp(client, 1, masqueraded));
        let [established, opening, closed, reset, half] = wanted;
        for connection in [established, closed, half] {
            connect(&mut model, connection);
        }
        model.request(opening, SYN);
        model.request(closed, FIN | ACK);
        model.reply(closed, FIN | ACK);
        model.request(reset, SYN);
        model.reply(reset, RST | ACK);
        model.request(half, FIN | ACK);
        let datagrams = udp(6, masqueraded);
        model.request(datagrams, 0);
        let size = if masqueraded { 4 } else { 2 };
        let all = [established, opening, closed, reset, half, datagrams];
        // In which second are which of them there?
        for (second, there) in [
            (9, [1, 1, 1, 1, 1, 1]),
            (10, [1, 1, 0, 0, 1, 1]),
            (29, [1, 1, 0, 0, 1, 1]),
            (30, [1, 1, 0, 0, 1, 0]),
            (60, [1, 0, 0, 0, 1, 0]),
            (3599, [1, 0, 0, 0, 1, 0]),
            (3600, [0, 0, 0, 0, 0, 0]),
        ] {
            model.now = START + second * SECOND;
            let tally = look(&mut model, false);
            let present = all.map(|connection| model.present(connection));
            assert_eq!(present, there.map(|one| one * size), "after {second} s");
            let living: u64 = there.iter().sum::<usize>() as u64;
            assert_eq!(tally.entries, living * size as u64, "after {second} s: {tally:?}");
            let counted = tally.established + tally.opening + tally.closed + tally.udp;
            assert_eq!((counted, tally.strays), (living, 0), "after {second} s: {tally:?}");
        }
    });
}

#[test]
fn any_packet_of_either_direction_prolongs_all() {
    both(|masqueraded| {
        let mut model = Model::new(100);
        let connection = udp(1, masqueraded);
        model.request(connection, 0);
        let all = model.present(connection);
        for seconds in (20..200).step_by(20) {
            model.now = START + seconds * SECOND;
            if seconds % 40 == 0 {
                model.request(connection, 0);
            } else {
                model.reply(connection, 0);
            }
            let tally = look(&mut model, false);
            assert_eq!(model.present(connection), all, "after {seconds} s");
            assert_eq!(tally.nearest, Some(LIFETIMES.udp), "after {seconds} s");
        }
    });
}

/// Before which step of a sweep a packet comes: before each there is.
fn before_each_step(
    connection: Wanted,
    then: fn(&mut Model, Wanted),
    judge: impl Fn(&Model, usize, u64),
) {
    for step in 1.. {
        let mut model = Model::new(100);
        connect(&mut model, connection);
        let whole = model.present(connection);
        model.now += 3600 * SECOND;
        model.meanwhile = Some(Box::new(move |model| {
            if model.steps.get() == step {
                model.now += 1000;
                then(model, connection);
            }
        }));
        look(&mut model, false);
        if model.steps.get() < step {
            assert!(step > 4, "a sweep has steps: {step}");
            return;
        }
        model.meanwhile = None;
        judge(&model, whole, step);
    }
}

#[test]
fn a_connection_used_between_any_two_steps_is_whole_or_gone() {
    both(|masqueraded| {
        let connection = tcp(1, 1, masqueraded);
        let packets: [fn(&mut Model, Wanted); 2] =
            [|model, it| model.request(it, ACK), |model, it| model.reply(it, ACK)];
        for (which, packet) in packets.into_iter().enumerate() {
            before_each_step(connection, packet, |model, whole, step| {
                let present = model.present(connection);
                let text = format!("packet {which} before step {step}: {present} of {whole}");
                assert!(present == whole || present == 0, "{text}");
                // A client's packet finds its connection, or makes it anew.
                assert!(which == 1 || present == whole, "{text}");
            });
        }
    });
}

#[test]
fn a_newer_connection_in_the_place_of_an_old_one_loses_nothing() {
    both(|masqueraded| {
        let old = tcp(1, 1, masqueraded);
        before_each_step(
            old,
            |model, old| {
                // As a program does whose backend is gone: the request first, then the others.
                for entry in old.entries(0).iter().rev() {
                    model.entries.remove(&entry.key);
                }
                model.request(Wanted { backend: 2, ..old }, SYN);
            },
            |model, whole, step| {
                let newer = Wanted { backend: 2, ..old };
                assert_eq!(model.present(newer), whole, "before step {step}");
            },
        );
    });
}

#[test]
fn entries_without_partners_go_after_the_shortest_time() {
    both(|masqueraded| {
        let connection = tcp(1, 1, masqueraded);
        let all = connection.entries(START);
        // Every part of a connection, but all and nothing of it.
        for part in 1..(1_usize << all.len()) - 1 {
            let mut model = Model::new(100);
            let there = all.iter().enumerate().filter(|(n, _)| part & 1 << n != 0);
            model.entries.extend(there.map(|(_, entry)| (entry.key, entry.flow)));
            let strays = model.entries.len() as u64;
            model.now += 9 * SECOND;
            let tally = look(&mut model, false);
            assert_eq!((tally.strays, tally.entries), (strays, strays), "part {part:04b}");
            model.now += SECOND;
            assert_eq!(look(&mut model, false), Tally::default(), "part {part:04b}");
            assert!(model.entries.is_empty(), "part {part:04b}");
        }
    });
}

#[test]
fn a_stray_beside_a_living_connection_goes_alone() {
    // The request was replaced when its backend went; the old reply stayed.
    let (old, new) = (tcp(1, 1, false), tcp(1, 2, false));
    let mut model = Model::new(100);
    connect(&mut model, old);
    model.entries.remove(&old.request_key());
    connect(&mut model, new);
    // Two frontends' requests that lead to one reply: only one is its own.
    let mut other = old.entries(START)[1];
    other.key.destination = model::address(201);
    other.flow.destination = new.entries(START)[1].flow.destination;
    model.entries.insert(other.key, other.flow);
    assert_eq!(look(&mut model, false).strays, 2);
    model.now += 10 * SECOND;
    let tally = look(&mut model, false);
    assert_eq!((tally.strays, tally.established, tally.collected), (0, 1, 0));
    assert_eq!(model.present(new), 2, "the living connection");
    assert_eq!(model.entries.len(), 2);
}

/// A program that looks at a reply, and makes its request when the agent has taken the reply.
#[test]
fn a_reply_that_a_program_takes_for_its_own_is_not_lost() {
    for step in 1..8 {
        let connection = tcp(1, 1, false);
        let mut model = Model::new(100);
        let reply = connection.entries(START)[0];
        model.entries.insert(reply.key, reply.flow);
        model.now += 10 * SECOND;
        let mut begun = None;
        model.meanwhile = Some(Box::new(move |model: &mut Model| {
            let now = model.steps.get();
            if now == step {
                begun = model.begin_request(connection);
            }
            // It has finished when the agent has waited for it, which is the last but one step.
            if now == step + 1
                && let Some(request) = begun.take()
            {
                model.entries.insert(request.key, request.flow);
            }
        }));
        look(&mut model, false);
        model.meanwhile = None;
        let present = model.present(connection);
        assert!(present == 0 || present == 2, "begun before step {step}: {present} entries");
    }
}

#[test]
fn a_full_table_gets_room_from_connections_that_are_not_established() {
    let mut model = Model::new(160);
    for client in 1..=40 {
        connect(&mut model, tcp(client, 1, false));
    }
    // The later ones are used later; the last ones a moment ago.
    for client in 41..=80 {
        model.now = START + u64::from(client) * SECOND / 2;
        model.request(tcp(client, 1, false), SYN);
    }
    assert_eq!(model.entries.len(), 160);
    let tally = look(&mut model, false);
    assert_eq!((tally.entries, tally.early), (160, 0), "nobody asked for room");
    let tally = look(&mut model, true);
    assert_eq!((tally.entries, tally.early), (140, 10), "an eighth is free");
    assert_eq!((tally.established, tally.opening), (40, 30));
    for client in 1..=80 {
        let gone = (41..=50).contains(&client);
        assert_eq!(model.present(tcp(client, 1, false)), if gone { 0 } else { 2 }, "{client}");
    }
    assert_eq!(look(&mut model, true).early, 0, "there is room");
}

#[test]
fn a_full_table_spares_who_was_used_a_moment_ago_and_what_is_established() {
    let mut model = Model::new(20);
    for client in 1..=5 {
        connect(&mut model, tcp(client, 1, false));
    }
    model.now += 100 * SECOND;
    for client in 6..=10 {
        model.request(tcp(client, 1, false), SYN);
    }
    model.now += 2 * SECOND;
    assert_eq!(look(&mut model, true).entries, 20);
    model.now += SECOND;
    let tally = look(&mut model, true);
    assert_eq!((tally.early, tally.established, tally.opening), (1, 5, 4));
}

#[test]
fn an_endpoint_short_of_ports_gets_some_back_from_connections_that_are_not_established() {
    let mut model = Model::new(1000);
    model.ports = 16;
    // Of the 14 to one endpoint, 3 are established; the 4 to the other have their own 16 ports.
    for client in 1..=14 {
        model.now = START + u64::from(client) * SECOND;
        model.request(tcp(client, 1, true), SYN);
    }
    for client in 1..=3 {
        connect(&mut model, tcp(client, 1, true));
    }
    let others = [15, 16, 17, 18].map(|client| tcp(client, 2, true));
    others.into_iter().for_each(|other| model.request(other, SYN));
    let neither = tcp(19, 1, false);
    model.request(neither, SYN);
    model.now = START + 15 * SECOND;
    let sweep = |model: &mut Model, ports| {
        let (now, lack) = (model.now, Lack { room: false, ports });
        sweep(model, &LIFETIMES, now, lack).expect("the model's steps succeed")
    };
    assert_eq!(sweep(&mut model, false).early, 0, "nobody asked for a port");
    let tally = sweep(&mut model, true);
    assert_eq!((tally.early, tally.established, tally.opening), (6, 3, 10), "half are free");
    assert!(tally.short_of_ports.is_some());
    for client in 1..=14 {
        let gone = (4..=9).contains(&client);
        assert_eq!(model.present(tcp(client, 1, true)), if gone { 0 } else { 4 }, "{client}");
    }
    others.into_iter().for_each(|other| assert_eq!(model.present(other), 4));
    assert_eq!(model.present(neither), 2, "it holds no port");
    let tally = sweep(&mut model, true);
    assert_eq!((tally.early, tally.short_of_ports), (0, None), "enough are free");
}

#[test]
fn what_is_over_goes_first_from_a_full_table() {
    let mut model = Model::new(16);
    for client in 1..=4 {
        model.request(udp(client, false), 0);
    }
    model.now += 30 * SECOND;
    for client in 5..=8 {
        model.request(udp(client, false), 0);
    }
    model.now += 5 * SECOND;
    let tally = look(&mut model, true);
    assert_eq!((tally.collected, tally.early, tally.udp), (4, 0, 4));
}

#[test]
fn nothing_half_remains_where_there_is_no_room_to_put_it_back() {
    // The client's packet comes as its connection is taken out, and others take the room that it leaves.
    both(|masqueraded| {
        for step in 1..20 {
            let connection = tcp(1, 1, masqueraded);
            let mut model = Model::new(if masqueraded { 4 } else { 2 });
            connect(&mut model, connection);
            model.now += 3600 * SECOND;
            model.meanwhile = Some(Box::new(move |model: &mut Model| {
                if model.steps.get() == step {
                    model.now += 1000;
                    model.request(connection, ACK);
                }
                if model.steps.get() > step && model.entries.len() < model.capacity as usize {
                    let stranger = tcp(2, 2, false).entries(model.now)[1];
                    model.entries.insert(stranger.key, stranger.flow);
                }
            }));
            look(&mut model, false);
            let present = model.present(connection);
            assert!(
                present == 0 || present == connection.entries(0).len(),
                "step {step}: {present}"
            );
        }
    });
}
