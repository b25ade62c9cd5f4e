//! The socket path: what happens to `connect`, `sendmsg`, `recvmsg`, `getpeername` and `bind`.
//!
//! A translated address is final: a backend that is itself a frontend is not translated again.

use super::lookup::{Target, is_exempt, lookup, taken};
use super::select::{Choice, any, at, run, stick, still_selected};
use super::{Caller, Destination, Memory, Reason, Tables, Verdict};
use crate::abi::{Address, AffinityKey, MAX_FURTHER_PEERS, Peer, Port, Run, protocol};

/// `connect`: TCP, or UDP with a fixed peer.
#[inline(always)]
pub fn connect(
    tables: &impl Tables,
    caller: &impl Caller,
    memory: &mut impl Memory,
    destination: &Destination,
) -> Verdict {
    let target = match lookup(tables, caller, destination) {
        Ok(target) => target,
        Err(reason @ (Reason::NotService | Reason::Exempt)) => {
            // The socket now talks to somebody directly: showing a frontend would be a lie.
            memory.clear_first();
            if destination.protocol == protocol::UDP {
                forget_backend(memory, destination.address, destination.port);
            }
            return reason.into();
        }
        Err(reason) => return reason.into(),
    };
    let chosen = run(tables, &target).and_then(|run| pick(tables, caller, &target, run));
    let choice = match chosen {
        Ok(choice) => choice,
        Err(reason) => return reason.into(),
    };
    let peer = peer(destination, target.service, &choice, true);
    if !memory.set_first(&peer) {
        return Reason::OriginFull.into();
    }
    Verdict::rewrite(Reason::Translated, peer.backend, peer.backend_port)
}

/// `sendto` and `sendmsg` with an address on a UDP socket. The same socket keeps its backend while
/// that is in the set; then nothing is written.
#[inline(always)]
pub fn send(
    tables: &impl Tables,
    caller: &impl Caller,
    memory: &mut impl Memory,
    destination: &Destination,
) -> Verdict {
    let target = match lookup(tables, caller, destination) {
        Ok(target) => target,
        Err(reason @ (Reason::NotService | Reason::Exempt)) => {
            forget_backend(memory, destination.address, destination.port);
            return reason.into();
        }
        Err(reason) => return reason.into(),
    };
    let place = match find(memory, |peer| is_frontend(peer, destination)) {
        Some((place, peer)) => {
            // A connected socket hears its peer only, whoever else is in the set by now.
            let connected = peer.connected != 0 && memory.is_connected();
            let ours =
                peer.service == target.service && still_selected(tables, &peer).is_in(target.list);
            if connected || ours {
                return Verdict::rewrite(Reason::Kept, peer.backend, peer.backend_port);
            }
            place
        }
        None => Place::New,
    };
    let chosen =
        run(tables, &target).and_then(|run| distinct(tables, caller, memory, &target, run, place));
    let choice = match chosen {
        Ok(choice) => choice,
        Err(reason) => return reason.into(),
    };
    let peer = peer(destination, target.service, &choice, false);
    if !remember(tables, memory, place, &peer) {
        return Reason::OriginFull.into();
    }
    Verdict::rewrite(Reason::Translated, peer.backend, peer.backend_port)
}

/// `recvfrom` and `recvmsg`: `source` is where the packet came from.
#[inline(always)]
pub fn receive(memory: &mut impl Memory, source: Address, port: Port) -> Verdict {
    match find(memory, |peer| is_backend(peer, source, port)) {
        Some((_, peer)) => Verdict::rewrite(Reason::Reversed, peer.frontend, peer.frontend_port),
        None => Reason::NotService.into(),
    }
}

/// `getpeername`: `address` is the peer that the kernel knows.
#[inline(always)]
pub fn peer_name(memory: &mut impl Memory, address: Address, port: Port) -> Verdict {
    match memory.first() {
        Some(peer) if is_backend(peer, address, port) => {
            Verdict::rewrite(Reason::Reversed, peer.frontend, peer.frontend_port)
        }
        _ => Reason::NotService.into(),
    }
}

/// `bind`, when the kernel has found the port free: a NodePort is in use, although nobody listens, and so
/// is a port that packets to endpoints elsewhere get.
#[inline(always)]
pub fn bind(tables: &impl Tables, caller: &impl Caller, wanted: &Destination) -> Verdict {
    match taken(tables, caller, wanted) {
        Ok(Some(_)) if is_exempt(tables, caller) => Reason::Exempt.into(),
        Ok(Some(reason)) => reason.into(),
        Ok(None) => Reason::NotService.into(),
        Err(reason) => reason.into(),
    }
}

/// How many backends are tried for one that no other peer of the socket uses: one more than there
/// can be other peers, so that a free one is found if there is one.
const CANDIDATES: u32 = 18;

/// Where in a socket's memory a peer stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Further(usize),
    New,
}

#[inline(always)]
fn is_frontend(peer: &Peer, destination: &Destination) -> bool {
    peer.frontend == destination.address && peer.frontend_port == destination.port
}

#[inline(always)]
fn is_backend(peer: &Peer, address: Address, port: Port) -> bool {
    peer.backend == address && peer.backend_port == port
}

#[inline(always)]
fn peer(destination: &Destination, service: u32, choice: &Choice, connected: bool) -> Peer {
    Peer {
        frontend: destination.address,
        backend: choice.backend.address,
        frontend_port: destination.port,
        backend_port: choice.backend.port,
        protocol: destination.protocol,
        connected: u8::from(connected),
        backend_id: choice.id,
        backend_generation: choice.backend.life().generation,
        service,
        ..Peer::NONE
    }
}

/// The socket's peer that `wanted` accepts.
#[inline(always)]
fn find(memory: &mut impl Memory, wanted: impl Fn(&Peer) -> bool) -> Option<(Place, Peer)> {
    if let Some(peer) = memory.first().filter(|peer| wanted(peer)) {
        return Some((Place::First, *peer));
    }
    let further = memory.further()?;
    let index = further.search(wanted);
    further.list.get(index).map(|peer| (Place::Further(index), *peer))
}

/// A backend for this caller, who as a client is its network namespace.
#[inline(always)]
fn pick(
    tables: &impl Tables,
    caller: &impl Caller,
    target: &Target,
    run: Run,
) -> Result<Choice, Reason> {
    if target.affinity_seconds == 0 {
        return any(tables, run);
    }
    let client = AffinityKey::of_netns(caller.netns(), target.service);
    stick(tables, target, &client, any(tables, run)?)
}

/// The chosen backend, if none of the socket's other peers uses it: replies could not be told
/// apart. Else one of `run` that is not in use, affinity or not; if all are, the latest frontend
/// wins.
#[inline(always)]
fn distinct(
    tables: &impl Tables,
    caller: &impl Caller,
    memory: &mut impl Memory,
    target: &Target,
    run: Run,
    place: Place,
) -> Result<Choice, Reason> {
    let first = pick(tables, caller, target, run)?;
    if !in_use(memory, place, &first) {
        return Ok(first);
    }
    let mut slot = run.pick(tables.random());
    for _ in 0..run.count.min(CANDIDATES) {
        let choice = at(tables, slot)?;
        if !in_use(memory, place, &choice) {
            return Ok(choice);
        }
        slot += 1;
        if slot >= run.first + run.count {
            slot = run.first;
        }
    }
    Ok(first)
}

/// Whether a peer other than the one at `place` has this backend.
#[inline(always)]
fn in_use(memory: &mut impl Memory, place: Place, choice: &Choice) -> bool {
    let (address, port) = (choice.backend.address, choice.backend.port);
    find(memory, |peer| is_backend(peer, address, port)).is_some_and(|(other, _)| other != place)
}

/// Writes `peer` at `place`. A new one goes where there is room: the first place, the end of the
/// list, or a peer whose backend has left the set.
#[inline(always)]
fn remember(tables: &impl Tables, memory: &mut impl Memory, place: Place, peer: &Peer) -> bool {
    forget_backend(memory, peer.backend, peer.backend_port);
    let known = match place {
        Place::First => return memory.set_first(peer),
        Place::New if memory.first().is_none() => return memory.set_first(peer),
        Place::Further(index) => Some(index),
        Place::New => None,
    };
    let Some(further) = memory.further_or_new() else { return false };
    let index = match known {
        Some(index) => index,
        None if (further.count as usize) < MAX_FURTHER_PEERS => {
            further.count += 1;
            further.count as usize - 1
        }
        None => further.search(|old| !still_selected(tables, old).is_in_any()),
    };
    further.list.get_mut(index).map(|entry| *entry = *peer).is_some()
}

/// The socket now reaches this backend by another name: replies belong to that one. The peer that
/// a socket is connected to stays.
#[inline(always)]
fn forget_backend(memory: &mut impl Memory, address: Address, port: Port) {
    match find(memory, |peer| is_backend(peer, address, port)) {
        Some((Place::First, peer)) if peer.connected == 0 || !memory.is_connected() => {
            memory.clear_first();
        }
        Some((Place::Further(index), _)) => {
            if let Some(peer) = memory.further().and_then(|further| further.list.get_mut(index)) {
                *peer = Peer::NONE;
            }
        }
        Some((Place::First | Place::New, _)) | None => {}
    }
}
