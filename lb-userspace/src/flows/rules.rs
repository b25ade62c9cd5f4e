//! When a connection is over: how long it may be idle, by what was seen of it. Pure.

use std::time::Duration;

use lb_common::abi::protocol;
use lb_common::packet::tcp_flags::{ACK, FIN, RST, SYN};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// TCP: the handshake is complete, or was before anything was seen of the connection.
    Established,
    /// TCP: nothing came back yet, or the client did not take it up.
    Opening,
    /// TCP: both sides have said their last, or one has reset it.
    Closed,
    /// UDP, which knows no states.
    Udp,
}

/// What was seen of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Direction {
    /// TCP's flags, ORed.
    pub(super) flags: u8,
    /// Whether there were any.
    pub(super) packets: bool,
}

impl State {
    /// The state of a connection.
    pub(super) fn of(number: u8, client: Direction, server: Direction) -> Self {
        if number != protocol::TCP {
            return Self::Udp;
        }
        let either = client.flags | server.flags;
        if either & RST != 0 || client.flags & server.flags & FIN != 0 {
            return Self::Closed;
        }
        // A connection that was there before us shows no SYN.
        let taken_up = client.flags & ACK != 0 || either & SYN == 0;
        if server.packets && client.packets && taken_up { Self::Established } else { Self::Opening }
    }
}

/// How long connections may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// `--flow-established`
    pub established: Duration,
    /// `--flow-syn`
    pub opening: Duration,
    /// `--flow-closed`
    pub closed: Duration,
    /// `--flow-udp`
    pub udp: Duration,
}

impl Lifetimes {
    /// Of a connection in this state.
    pub(super) fn of(&self, state: State) -> Duration {
        match state {
            State::Established => self.established,
            State::Opening => self.opening,
            State::Closed => self.closed,
            State::Udp => self.udp,
        }
    }

    /// Of an entry without the others of its connection: the shortest of all. It is in use, too, if packets come: those of
    /// a client to whom nothing comes back.
    pub(super) fn of_stray(&self) -> Duration {
        self.established.min(self.opening).min(self.closed).min(self.udp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The direction in which these were seen; `None` is no packet.
    fn seen(flags: Option<u8>) -> Direction {
        Direction { flags: flags.unwrap_or(0), packets: flags.is_some() }
    }

    #[test]
    fn the_state_follows_from_what_was_seen() {
        use State::{Closed, Established, Opening};
        const PSH: u8 = 8;
        // client, server, state
        for (client, server, expected, what) in [
            (Some(SYN), None, Opening, "nothing came back"),
            (Some(SYN | ACK), None, Opening, "the client goes on without an answer that we see"),
            (Some(SYN), Some(SYN | ACK), Opening, "the client did not take it up"),
            (Some(SYN | ACK), Some(SYN | ACK), Established, "the handshake is complete"),
            (Some(SYN | ACK | PSH), Some(SYN | ACK | PSH), Established, "data both ways"),
            (Some(ACK), Some(ACK), Established, "picked up in its midst"),
            (Some(ACK), None, Opening, "picked up in its midst, and nothing comes back"),
            (None, Some(ACK), Opening, "only the server is heard"),
            (Some(0), Some(0), Established, "only later fragments were seen"),
            (Some(SYN | ACK | FIN), Some(SYN | ACK), Established, "half closed by the client"),
            (Some(SYN | ACK), Some(SYN | ACK | FIN), Established, "half closed by the server"),
            (Some(SYN | ACK | FIN), Some(SYN | ACK | FIN), Closed, "closed by both"),
            (Some(ACK | FIN), Some(ACK | FIN), Closed, "closed by both, picked up in its midst"),
            (Some(SYN), Some(RST | ACK), Closed, "refused"),
            (Some(SYN | ACK | RST), Some(SYN | ACK), Closed, "reset by the client"),
            (Some(SYN | ACK), Some(SYN | ACK | RST), Closed, "reset by the server"),
            (Some(SYN | RST), None, Closed, "given up"),
        ] {
            let state = State::of(protocol::TCP, seen(client), seen(server));
            assert_eq!(state, expected, "{what}: client {client:?}, server {server:?}");
        }
        for flags in [None, Some(0), Some(RST)] {
            assert_eq!(State::of(protocol::UDP, seen(Some(0)), seen(flags)), State::Udp);
        }
    }

    #[test]
    fn a_stray_lives_no_longer_than_any_connection() {
        let seconds = Duration::from_secs;
        let lifetimes = |established, opening, closed, udp| Lifetimes {
            established: seconds(established),
            opening: seconds(opening),
            closed: seconds(closed),
            udp: seconds(udp),
        };
        assert_eq!(lifetimes(3600, 60, 10, 60).of_stray(), seconds(10));
        assert_eq!(lifetimes(3600, 60, 100, 5).of_stray(), seconds(5));
        assert_eq!(lifetimes(1, 60, 100, 5).of_stray(), seconds(1));
        let all = lifetimes(4, 3, 2, 1);
        let states = [State::Established, State::Opening, State::Closed, State::Udp];
        assert_eq!(states.map(|state| all.of(state)), [4, 3, 2, 1].map(seconds));
    }
}
