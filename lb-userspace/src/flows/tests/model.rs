//! `FLOWS` and the programs that use it, as collection sees them: packets come between any two steps.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use lb_common::abi::{Address, Flow, FlowKey, Hook, Port, Role, protocol};

use super::super::{Entry, Table};

/// The clock at the start, in nanoseconds.
pub(super) const START: u64 = 1 << 40;
pub(super) const SECOND: u64 = 1_000_000_000;

/// What a processor does between two steps of the agent.
pub(super) type Step = Box<dyn FnMut(&mut Model)>;

/// The table, and a processor that is at work between two steps of the agent.
#[derive(Default)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<FlowKey, Flow>,
    pub(super) capacity: u32,
    /// By how many the node can stand in for clients of one backend.
    pub(super) ports: u32,
    pub(super) now: u64,
    /// Whether something could not be put back.
    pub(super) had_no_room: bool,
    /// What happens before each step of the agent, while there is any.
    pub(super) meanwhile: Option<Step>,
    /// Steps that the agent has made.
    pub(super) steps: Cell<u64>,
}

/// A client's connection, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) protocol: u8,
    pub(super) client: u8,
    pub(super) backend: u8,
    pub(super) masqueraded: bool,
}

impl Wanted {
    /// `c → V`
    pub(super) fn request_key(self) -> FlowKey {
        self.key(Hook::Ingress, self.client(), (address(200), Port::new(80)))
    }

    /// `B → c'`
    pub(super) fn reply_key(self) -> FlowKey {
        self.key(Hook::Egress, self.server(), self.stand_in_port())
    }

    /// Keys and entries in the order in which programs make them.
    pub(super) fn entries(self, now: u64) -> Vec<Entry> {
        let frontend = (address(200), Port::new(80));
        let (client, server) = (self.client(), self.server());
        let sent = self.stand_in_port();
        let node = (address(100), sent.1);
        let flow = |role: Role, source: (Address, Port), destination: (Address, Port)| Flow {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            node: if self.masqueraded { address(100) } else { Address::UNSPECIFIED },
            role: role as u8,
            last_seen: now,
            ..Flow::NONE
        };
        let entry = |key, flow| Entry { key, flow };
        let mut all = Vec::new();
        if self.masqueraded {
            let key = self.key(Hook::Ingress, server, node);
            all.push(entry(key, flow(Role::MasqueradedReply, server, sent)));
        }
        all.push(entry(self.reply_key(), flow(Role::Reply, frontend, client)));
        if self.masqueraded {
            let key = self.key(Hook::Egress, sent, server);
            all.push(entry(key, flow(Role::MasqueradedRequest, node, server)));
        }
        all.push(entry(self.request_key(), flow(Role::Request, sent, server)));
        all
    }

    fn client(self) -> (Address, Port) {
        (address(self.client), Port::new(4000))
    }

    fn server(self) -> (Address, Port) {
        (address(150 + self.backend), Port::new(8080))
    }

    /// `c'`
    fn stand_in_port(self) -> (Address, Port) {
        let port = if self.masqueraded { 60_000 + u16::from(self.client) } else { 4000 };
        (address(self.client), Port::new(port))
    }

    fn key(self, hook: Hook, source: (Address, Port), destination: (Address, Port)) -> FlowKey {
        FlowKey {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            protocol: self.protocol,
            hook: hook as u8,
            ..FlowKey::NONE
        }
    }
}

pub(super) fn address(last: u8) -> Address {
    IpAddr::from([10, 0, 0, last]).into()
}

/// TCP between a client and a backend.
pub(super) fn tcp(client: u8, backend: u8, masqueraded: bool) -> Wanted {
    Wanted { protocol: protocol::TCP, client, backend, masqueraded }
}

impl Model {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, now: START, ..Self::default() }
    }

    /// A packet of the client. If its connection is not known, it is made: all of it, or nothing. Programs take a reply
    /// that they find, and that has no request, for their own.
    pub(super) fn request(&mut self, wanted: Wanted, flags: u8) {
        if self.note(&wanted.request_key(), flags) {
            self.masqueraded(wanted, Hook::Egress, flags);
            return;
        }
        let (now, mut made) = (self.now, Vec::new());
        for Entry { key, flow } in wanted.entries(now) {
            match self.entries.get(&key) {
                Some(there) if same_reply(there, &flow) => continue,
                None if self.entries.len() < self.capacity as usize => {
                    self.entries.insert(key, flow);
                    made.push(key);
                }
                Some(_) | None => {
                    for key in made {
                        self.entries.remove(&key);
                    }
                    return;
                }
            }
        }
        self.note(&wanted.request_key(), flags);
        self.masqueraded(wanted, Hook::Egress, flags);
    }

    /// A packet of the backend.
    pub(super) fn reply(&mut self, wanted: Wanted, flags: u8) {
        self.masqueraded(wanted, Hook::Ingress, flags);
        self.note(&wanted.reply_key(), flags);
    }

    /// A program finds no request, and takes the reply that is there for its own; the request comes when it is called.
    pub(super) fn begin_request(&mut self, wanted: Wanted) -> Option<Entry> {
        let entries = wanted.entries(self.now);
        let [reply, request] = entries[..] else { return None };
        let ours = self.entries.get(&reply.key).is_some_and(|there| same_reply(there, &reply.flow));
        (ours && !self.entries.contains_key(&request.key)).then_some(request)
    }

    /// All entries of the connection that are there.
    pub(super) fn present(&self, wanted: Wanted) -> usize {
        let entries = wanted.entries(0);
        entries.iter().filter(|entry| self.is_there(entry)).count()
    }

    /// Whether the entry, or one that does the same, is there.
    pub(super) fn is_there(&self, entry: &Entry) -> bool {
        let same = |flow: &Flow| Flow { last_seen: 0, seen: 0, packets: 0, ..*flow };
        self.entries.get(&entry.key).is_some_and(|there| same(there) == same(&entry.flow))
    }

    fn masqueraded(&mut self, wanted: Wanted, hook: Hook, flags: u8) {
        let role = match hook {
            Hook::Ingress => Role::MasqueradedReply,
            Hook::Egress => Role::MasqueradedRequest,
        };
        let entry = wanted.entries(0).into_iter().find(|entry| entry.flow.role == role as u8);
        if let Some(entry) = entry {
            self.note(&entry.key, flags);
        }
    }

    fn note(&mut self, key: &FlowKey, flags: u8) -> bool {
        let now = self.now;
        let Some(flow) = self.entries.get_mut(key) else { return false };
        *flow =
            Flow { last_seen: now, packets: flow.packets + 1, seen: flow.seen | flags, ..*flow };
        true
    }

    fn step(&mut self) {
        self.steps.set(self.steps.get() + 1);
        if let Some(mut meanwhile) = self.meanwhile.take() {
            meanwhile(self);
            // Unless it has put another in its place.
            self.meanwhile.get_or_insert(meanwhile);
        }
    }
}

fn same_reply(there: &Flow, wanted: &Flow) -> bool {
    let to = |flow: &Flow| (flow.source, flow.source_port, flow.destination, flow.destination_port);
    wanted.role == Role::Reply as u8
        && wanted.node == Address::UNSPECIFIED
        && to(there) == to(wanted)
}

impl Table for Model {
    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn ports(&self) -> u32 {
        self.ports
    }

    fn list(&mut self) -> io::Result<Vec<Entry>> {
        self.step();
        Ok(self.entries.iter().map(|(&key, &flow)| Entry { key, flow }).collect())
    }

    fn look(&mut self, key: &FlowKey) -> io::Result<Option<Flow>> {
        self.step();
        Ok(self.entries.get(key).copied())
    }

    fn take(&mut self, key: &FlowKey) -> io::Result<Option<Flow>> {
        self.step();
        Ok(self.entries.remove(key))
    }

    fn put(&mut self, entry: &Entry) -> io::Result<()> {
        self.step();
        if self.entries.contains_key(&entry.key) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.entries.len() >= self.capacity as usize {
            self.had_no_room = true;
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        self.entries.insert(entry.key, entry.flow);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.step();
        Ok(())
    }
}
