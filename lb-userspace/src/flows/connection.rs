//! Which entries are one connection's. Pure.
//!
//! The key of the reply (`B → c'`) follows from each of the others (`Flow::reply_key`), and theirs from the reply. An
//! entry belongs to a connection if both lead to each other: it may also be one of an earlier connection, whose reply or
//! request was replaced, or of one that lost the rest when a program was stopped half-way.

use std::time::Duration;

use lb_common::abi::{FlowKey, Role};

use super::Entry;
use super::rules::{Direction, Lifetimes, State};

/// All entries of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection<'e> {
    request: &'e Entry,
    reply: &'e Entry,
    /// Request and reply between the node, which stands in for the client, and the backend.
    masqueraded: Option<[&'e Entry; 2]>,
}

/// What is taken out as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit<'e> {
    /// A connection.
    Whole(Connection<'e>),
    /// An entry whose partners are missing.
    Stray(&'e Entry),
}

/// The entries, put together; their order changes.
pub(super) fn units(entries: &mut [Entry]) -> impl Iterator<Item = Unit<'_>> {
    // Not cached: there may be millions, and they are copied in an instant.
    entries.sort_unstable_by_key(reply_key);
    entries.chunk_by(|one, other| reply_key(one) == reply_key(other)).flat_map(|group| {
        let whole = Connection::of(group);
        let strays = group.iter().filter(move |entry| !whole.is_some_and(|it| it.has(entry)));
        whole.into_iter().map(Unit::Whole).chain(strays.map(Unit::Stray))
    })
}

fn reply_key(entry: &Entry) -> FlowKey {
    entry.flow.reply_key(&entry.key)
}

impl<'e> Connection<'e> {
    /// The connection among these entries, all of which lead to one reply. `None` if it is not whole.
    fn of(group: &'e [Entry]) -> Option<Self> {
        let find = |role: Role, key: &FlowKey| {
            group.iter().find(|entry| entry.flow.role == role as u8 && entry.key == *key)
        };
        let reply = find(Role::Reply, &reply_key(&group[0]))?;
        let request = find(Role::Request, &reply.flow.request_key(&reply.key))?;
        let masqueraded = if reply.flow.is_masqueraded() {
            let [request, answer] = reply.flow.masqueraded_keys(&reply.key);
            Some([
                find(Role::MasqueradedRequest, &request)?,
                find(Role::MasqueradedReply, &answer)?,
            ])
        } else {
            None
        };
        let whole = Self { request, reply, masqueraded };
        let node = reply.flow.node;
        whole.entries().all(|entry| entry.flow.node == node).then_some(whole)
    }

    fn has(&self, entry: &Entry) -> bool {
        self.entries().any(|own| std::ptr::eq(own, entry))
    }

    /// The entries in the order in which they are taken out: the request's last. A program that does not find it makes the
    /// connection anew, and takes a reply that it finds for its own.
    fn entries(&self) -> impl Iterator<Item = &'e Entry> + use<'e> {
        let [request, reply] = self.masqueraded.map_or([None; 2], |both| both.map(Some));
        [reply, Some(self.reply), request, Some(self.request)].into_iter().flatten()
    }

    fn state(&self) -> State {
        let [request, reply] = self.masqueraded.map_or([None; 2], |both| both.map(Some));
        let seen = |own: &Entry, other: Option<&Entry>| Direction {
            flags: own.flow.seen | other.map_or(0, |entry| entry.flow.seen),
            packets: own.flow.packets > 0 || other.is_some_and(|entry| entry.flow.packets > 0),
        };
        State::of(self.request.key.protocol, seen(self.request, request), seen(self.reply, reply))
    }
}

impl<'e> Unit<'e> {
    /// The entries in the order in which they are taken out.
    pub(super) fn entries(self) -> impl Iterator<Item = &'e Entry> {
        let (whole, stray) = match self {
            Self::Whole(connection) => (Some(connection.entries()), None),
            Self::Stray(entry) => (None, Some(entry)),
        };
        whole.into_iter().flatten().chain(stray)
    }

    /// How far the connection has come; `None` of a stray.
    pub(super) fn state(self) -> Option<State> {
        match self {
            Self::Whole(connection) => Some(connection.state()),
            Self::Stray(_) => None,
        }
    }

    /// How long it may be idle.
    pub(super) fn lifetime(self, lifetimes: &Lifetimes) -> Duration {
        self.state().map_or(lifetimes.of_stray(), |state| lifetimes.of(state))
    }

    /// How long no packet has come; `now` is a time as in [`lb_common::abi::Flow::last_seen`].
    pub(super) fn idle(self, now: u64) -> Duration {
        let last = self.entries().map(|entry| entry.flow.last_seen).max().unwrap_or(0);
        Duration::from_nanos(now.saturating_sub(last))
    }
}
