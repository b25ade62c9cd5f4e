//! Wanted state → writes, in an order of which every prefix is legal.
//!
//! A batch runs: sets (one store switches a side) → frontends that move between services → sets of
//! services that go → deletes → one grace period → inserts. See `docs/update-protocol.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{FrontendEntry, FrontendKey, FrontendKind, List, Policy, Port, Run, protocol};

use super::claims::{Claim, Waiting, is_asserted, is_cluster_ip};
use super::maps::Maps;
use super::pools::{Obstacle, Pools, Shortage};
use super::set::Set;
use super::turnover::{Stuck, Turnover};
use super::{Change, Refused};
use crate::object::Key;
use crate::plan::{Part, Protocol, ServicePortId, Wanted};

/// The agent's own picture of the maps, and the only one who writes them.
#[derive(Debug)]
pub(super) struct Writer<M> {
    pub(super) maps: M,
    pub(super) pools: Pools,
    pub(super) services: BTreeMap<ServicePortId, Installed>,
    /// The same by service index.
    pub(super) owners: BTreeMap<u32, ServicePortId>,
    /// Found in the maps at start and wanted by nobody yet; by service index.
    pub(super) adopted: BTreeMap<u32, Installed>,
    /// Going in the present batch, not yet emptied.
    pub(super) departing: BTreeMap<u32, Installed>,
    /// Every entry of `FRONTENDS`.
    pub(super) frontends: BTreeMap<FrontendKey, FrontendEntry>,
    /// Frontends that are wanted and that others have.
    pub(super) waiting: Waiting,
    /// What did not fit; tried again with every batch.
    pub(super) unfinished: BTreeMap<ServicePortId, (Wanted, String)>,
    /// Entries that could not be written or deleted; likewise.
    pub(super) stuck: BTreeMap<FrontendKey, Stuck>,
    /// Services that have lost a frontend since the last grace period: a program that found them
    /// by it may still be about to load their run.
    pub(super) gave_up: BTreeSet<u32>,
    /// Whether an element of `FRONTENDS` may have been freed since the last grace period.
    pub(super) freed: bool,
    /// Whether a frontend was moved, dropped or narrowed since flows were told to look.
    pub(super) narrowed: bool,
    /// Services whose set lacks a table of `MAGLEV`.
    pub(super) without_table: BTreeSet<ServicePortId>,
}

/// What the maps hold for one service port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) index: u32,
    /// Its entries in `FRONTENDS`.
    pub(super) frontends: BTreeSet<FrontendKey>,
    pub(super) set: Set,
}

impl<M: Maps> Writer<M> {
    /// A writer of maps that hold nothing. They may have held something a moment ago.
    pub(super) fn new(maps: M) -> Self {
        Self {
            pools: Pools::new(&maps.capacity()),
            maps,
            services: BTreeMap::new(),
            owners: BTreeMap::new(),
            adopted: BTreeMap::new(),
            departing: BTreeMap::new(),
            frontends: BTreeMap::new(),
            waiting: Waiting::default(),
            unfinished: BTreeMap::new(),
            stuck: BTreeMap::new(),
            gave_up: BTreeSet::new(),
            freed: true,
            narrowed: false,
            without_table: BTreeSet::new(),
        }
    }

    /// Makes the changes visible to programs. Returns all that cannot be made at present, those of
    /// earlier batches included; they are tried again with the next.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused> {
        let earlier = std::mem::take(&mut self.unfinished).into_iter();
        let mut batch: BTreeMap<_, _> =
            earlier.map(|(id, (wanted, _))| (id, Some(wanted))).collect();
        batch.extend(changes);
        self.let_go(&mut batch);

        let none_lacked = self.without_table.is_empty();
        let mut turnover = self.departures(&batch);
        for (id, wanted) in batch {
            let Some(wanted) = wanted else { continue };
            match self.install(&id, &wanted, &mut turnover) {
                Ok(()) => self.schedule_ranges(id, wanted, &mut turnover),
                Err(obstacle) => {
                    self.unfinished.insert(id, (wanted, obstacle.to_string()));
                }
            }
        }
        self.turn_over(turnover);
        self.have_flows_look();
        self.share_out_tables(none_lacked);
        self.refusals()
    }

    /// Waits for programs that came by a frontend which is another service's by now, before the
    /// service that they found changes: its next endpoints were never that frontend's. If the kernel
    /// fails to wait, such services change with a later batch.
    fn let_go(&mut self, batch: &mut BTreeMap<ServicePortId, Option<Wanted>>) {
        let gave_up = |id: &ServicePortId| {
            self.services.get(id).is_some_and(|i| self.gave_up.contains(&i.index))
        };
        let changing: Vec<ServicePortId> = batch.keys().filter(|id| gave_up(id)).cloned().collect();
        if changing.is_empty() {
            return;
        }
        let Err(error) = self.grace() else { return };
        for id in changing {
            if let Some(Some(wanted)) = batch.get_mut(&id).map(Option::take) {
                batch.remove(&id);
                self.unfinished.insert(id, (wanted, cannot_wait(&error)));
            }
        }
    }

    /// What cannot be made at present, and why.
    fn refusals(&self) -> Vec<Refused> {
        let unfinished = self.unfinished.iter();
        let unfinished = unfinished.map(|(id, (_, message))| (id, message.clone()));
        let waiting = self.waiting.iter().filter_map(|(id, keys)| {
            // Several Services may have an address for clients outside: whoever answers to ping.
            let is_refused = |(key, kind): &(&FrontendKey, &FrontendKind)| {
                **kind != FrontendKind::ExternalAddress || self.stuck.contains_key(*key)
            };
            let reasons = keys.iter().filter(is_refused).map(|(key, _)| self.why_not(key));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            (!reasons.is_empty()).then_some((id, reasons))
        });
        unfinished.chain(waiting).map(|(id, message)| Refused { id: id.clone(), message }).collect()
    }

    /// Why a frontend is not given to those who wait for it.
    fn why_not(&self, key: &FrontendKey) -> String {
        let key_text = describe(key);
        if let Some(Stuck { error, .. }) = self.stuck.get(key) {
            return format!("{key_text}: {error}");
        }
        let index = self.frontends.get(key).map(|entry| entry.service());
        match index.and_then(|index| self.owners.get(&index)) {
            Some(ServicePortId { service: Key { namespace, name, .. }, .. }) => {
                format!("{key_text} belongs to Service {namespace}/{name}")
            }
            None => format!("{key_text} belongs to a Service that has not been read yet"),
        }
    }

    /// Removes what an earlier agent left and nobody has wanted since.
    pub(super) fn prune(&mut self) {
        self.departing.append(&mut self.adopted);
        let stale =
            self.frontends.iter().filter(|(_, entry)| !self.owners.contains_key(&entry.service()));
        let stale: Vec<FrontendKey> = stale.map(|(key, _)| *key).collect();
        let mut turnover = self.departures(&BTreeMap::new());
        turnover.drop.extend(stale);
        self.turn_over(turnover);
        self.have_flows_look();
    }

    /// Has flows look again whether their frontend leads where it did, if one may not. If the kernel fails to wait, the
    /// next batch does.
    fn have_flows_look(&mut self) {
        if self.narrowed {
            let _next_time = self.grace();
        }
    }

    /// The service ports that a batch takes away, and the frontends that it takes from any.
    fn departures(&mut self, batch: &BTreeMap<ServicePortId, Option<Wanted>>) -> Turnover {
        let mut turnover = Turnover::default();
        for (key, stuck) in std::mem::take(&mut self.stuck) {
            turnover.retry.insert(key);
            if stuck.given_up {
                turnover.drop.insert(key);
            }
        }
        for (id, wanted) in batch {
            self.waiting.withdraw(id);
            match wanted {
                None => {
                    if let Some(installed) = self.remove(id) {
                        turnover.drop.extend(&installed.frontends);
                        self.departing.insert(installed.index, installed);
                    }
                }
                Some(wanted) => {
                    let keys = keys(id, wanted);
                    self.take_over(id, &keys);
                    for key in self.services.get(id).iter().flat_map(|i| &i.frontends) {
                        if keys.contains_key(key) {
                            // A delete that failed may be wanted again by now.
                            turnover.drop.remove(key);
                        } else {
                            turnover.drop.insert(*key);
                        }
                    }
                }
            }
        }
        turnover
    }

    /// Takes over what the maps hold for `id`, which wants `keys`, since before this agent started.
    /// Not what has a ClusterIP or an external address that is not wanted here: it may be left of
    /// another Service, whose clients must not be sent here. NodePorts come and go with the node's
    /// addresses.
    fn take_over(&mut self, id: &ServicePortId, keys: &BTreeMap<FrontendKey, FrontendKind>) {
        if self.services.contains_key(id) || self.adopted.is_empty() {
            return;
        }
        let entries = keys.keys().filter_map(|key| self.frontends.get(key));
        let owners: BTreeSet<u32> = entries.map(|entry| entry.service()).collect();
        let ours = |index: &u32| {
            self.adopted.get(index).is_some_and(|adopted| {
                let entries = adopted.frontends.iter().map(|key| (key, self.frontends[key].kind()));
                let mut cluster_ips = entries.clone().filter(|(_, kind)| is_cluster_ip(*kind));
                let any = cluster_ips.clone().next().is_some();
                let mut external = entries.filter(|(_, kind)| is_asserted(*kind));
                // By the same right: another Service may assert it as an external address.
                any && cluster_ips.all(|(key, kind)| keys.get(key) == Some(&kind))
                    && external.all(|(key, _)| keys.contains_key(key))
            })
        };
        let found = owners.into_iter().find(ours).and_then(|index| self.adopted.remove(&index));
        if let Some(found) = found {
            self.insert(id, found);
        }
    }

    fn insert(&mut self, id: &ServicePortId, installed: Installed) {
        self.owners.insert(installed.index, id.clone());
        self.services.insert(id.clone(), installed);
    }

    fn remove(&mut self, id: &ServicePortId) -> Option<Installed> {
        let installed = self.services.remove(id)?;
        self.without_table.remove(id);
        self.owners.remove(&installed.index);
        Some(installed)
    }

    /// What is installed at this service index.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Installed> {
        match self.owners.get(&index) {
            Some(id) => self.services.get_mut(id),
            None => self.adopted.get_mut(&index).or_else(|| self.departing.get_mut(&index)),
        }
    }

    /// Makes the set of `id` as wanted, and notes what its frontends need.
    fn install(
        &mut self,
        id: &ServicePortId,
        wanted: &Wanted,
        turnover: &mut Turnover,
    ) -> Result<(), Obstacle> {
        let keys = keys(id, wanted);
        let new = keys.keys().filter(|key| !self.frontends.contains_key(key)).count();

        let result = self.check_frontends(new, turnover).map_err(Obstacle::from).and_then(|()| {
            if !self.services.contains_key(id) {
                let index = self.with_room(|writer| Ok(writer.pools.take_service()?))?;
                let installed = self.nothing(index);
                self.insert(id, installed);
            }
            self.update_set(id, wanted)
        });
        match result {
            Ok(()) => {
                let index = self.services[id].index;
                for (key, kind) in keys {
                    if self.frontends.get(&key) != Some(&FrontendEntry::new(&key, kind, index)) {
                        let claims = turnover.put.entry(key).or_default();
                        claims.insert(Claim::new(id.clone(), kind));
                    }
                }
            }
            Err(_) => {
                // Refused whole: what it has stays.
                for key in self.services.get(id).iter().flat_map(|i| &i.frontends) {
                    turnover.drop.remove(key);
                }
                self.discard_unshown(id);
            }
        }
        result
    }

    /// Makes the set of `id`, which has an index, as wanted, as far as its frontends allow.
    pub(super) fn update_set(
        &mut self,
        id: &ServicePortId,
        wanted: &Wanted,
    ) -> Result<(), Obstacle> {
        let policy = self.policy_for_now(id, wanted);
        self.with_room(|writer| {
            let installed = writer.services.get_mut(id).expect("it has one");
            let Installed { index, set, frontends } = installed;
            let before = set.policy;
            let updated = set.update(*index, wanted, policy, &mut writer.maps, &mut writer.pools);
            writer.narrowed |= !frontends.is_empty() && narrows(before, set.policy);
            if set.lacks_table {
                writer.without_table.insert(id.clone());
            } else {
                writer.without_table.remove(id);
            }
            updated
        })
    }

    /// A service index that no frontend leads to yet, with empty lists. The entry may be left from
    /// an agent that was killed before it wrote the frontends.
    fn nothing(&mut self, index: u32) -> Installed {
        let entry = self.maps.service(index);
        let none = Run { first: 0, count: 0, ..Run::from_word(entry.cluster) };
        self.maps.store_run(index, List::Cluster, none);
        self.maps.store_run(index, List::Local, none);
        let policy = Policy { maglev: 0, ..Policy::from_word(entry.policy) };
        if policy.to_word() != entry.policy {
            self.maps.store_policy(index, policy);
        }
        let set = Set { cluster: none, local: none, policy, ..Set::default() };
        Installed { index, set, ..Installed::default() }
    }

    /// Gives the index of a service back that has never had a frontend.
    fn discard_unshown(&mut self, id: &ServicePortId) {
        if self.services.get(id).is_some_and(|installed| installed.frontends.is_empty())
            && let Some(installed) = self.remove(id)
        {
            self.departing.insert(installed.index, installed);
        }
    }

    fn check_frontends(&self, new: usize, turnover: &Turnover) -> Result<(), Shortage> {
        let capacity = self.maps.capacity().frontends;
        let taken = self.frontends.len() + turnover.put.len();
        let free = (capacity as usize + turnover.drop.len()).saturating_sub(taken);
        if new <= free {
            return Ok(());
        }
        let free = u32::try_from(free).unwrap_or(capacity);
        Err(Shortage { map: "FRONTENDS", needed: new, free, capacity })
    }

    /// Runs `attempt`; if entries do not suffice, again after a grace period, and again after
    /// moving runs together.
    fn with_room<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Obstacle>,
    ) -> Result<T, Obstacle> {
        let mut shortage = match attempt(self) {
            Err(Obstacle::Shortage(shortage)) => shortage,
            done => return done,
        };
        if self.pools.has_limbo() && self.grace().is_ok() {
            shortage = match attempt(self) {
                Err(Obstacle::Shortage(shortage)) => shortage,
                done => return done,
            };
        }
        match u32::try_from(shortage.needed) {
            Ok(length) if shortage.map == "RUNS" && self.make_room(length).is_ok() => attempt(self),
            _ => Err(shortage.into()),
        }
    }

    /// Waits until no program reads what was given back, and sets it free.
    pub(super) fn grace(&mut self) -> io::Result<()> {
        self.maps.grace()?;
        self.pools.reclaim();
        self.gave_up.clear();
        self.freed = false;
        if std::mem::take(&mut self.narrowed) {
            self.maps.revise();
        }
        Ok(())
    }
}

/// The entries of `FRONTENDS` that are wanted for a service port.
pub(super) fn keys(id: &ServicePortId, wanted: &Wanted) -> BTreeMap<FrontendKey, FrontendKind> {
    let protocol = match id.part {
        Part::Port(Protocol::Tcp, _) => protocol::TCP,
        Part::Port(Protocol::Udp, _) => protocol::UDP,
        Part::Addresses => 0,
    };
    let frontends = wanted.frontends.iter();
    frontends
        .map(|f| (FrontendKey::new(f.address.into(), Port::new(f.port), protocol), f.kind))
        .collect()
}

/// Whether a client that was served may be served no more, or from another list.
const fn narrows(old: Policy, new: Policy) -> bool {
    (new.restricted && !old.restricted)
        || (new.external_local && !old.external_local)
        || (new.internal_local && !old.internal_local)
}

/// Whether an entry stands for an address itself.
pub(super) fn is_address(key: &&FrontendKey) -> bool {
    **key == FrontendKey::of_address(key.address)
}

/// Why something waits that needs a grace period.
pub(super) fn cannot_wait(error: &io::Error) -> String {
    format!("cannot wait for running programs: {error}")
}

/// As a person writes it: `10.96.0.1:80/TCP`.
fn describe(key: &FrontendKey) -> String {
    let address = IpAddr::from(key.address);
    match key.protocol {
        protocol::TCP => format!("{}/TCP", SocketAddr::new(address, key.port.number())),
        protocol::UDP => format!("{}/UDP", SocketAddr::new(address, key.port.number())),
        _ => address.to_string(),
    }
}
