//! What a batch changes in `FRONTENDS`: moves, deletes, a grace period, inserts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::abi::{FrontendEntry, FrontendKey, FrontendKind};

use super::claims::Claim;
use super::maps::Maps;
use super::writer::{Installed, Writer, cannot_wait, is_address};
use crate::plan::{ServicePortId, Wanted};

/// The changes of `FRONTENDS` that a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Frontends that need an entry, and who wants them.
    pub(super) put: BTreeMap<FrontendKey, BTreeSet<Claim>>,
    /// Entries that the one who has them does not want any more.
    pub(super) drop: BTreeSet<FrontendKey>,
    /// Frontends whose change failed before: whoever waits for one may have it now.
    pub(super) retry: BTreeSet<FrontendKey>,
    /// Services whose old ranges are to go when the load balancers' addresses that they lose are gone.
    pub(super) stale_ranges: BTreeMap<ServicePortId, Wanted>,
}

/// Why an entry is not as it should be.
#[derive(Clone, Debug)]
pub(super) struct Stuck {
    /// The one who has it does not want it any more.
    pub(super) given_up: bool,
    /// What the kernel said.
    pub(super) error: String,
}

impl<M: Maps> Writer<M> {
    /// Brings `FRONTENDS` in step, and empties the services that go.
    pub(super) fn turn_over(&mut self, mut turnover: Turnover) {
        let inserts = self.move_frontends(&mut turnover);
        // An address goes after its ports, and comes after them: until it is known, its other ports
        // are merely unallocated.
        let (addresses, ports): (Vec<_>, Vec<_>) = turnover.drop.iter().partition(is_address);
        for key in ports.into_iter().chain(addresses) {
            self.delete(key);
        }
        for Installed { index, set, .. } in self.departing.values_mut() {
            let (nothing, policy) = (Wanted::default(), set.policy);
            let emptied = set.update(*index, &nothing, policy, &mut self.maps, &mut self.pools);
            emptied.expect("an empty set needs no entries");
        }
        self.bury();
        for (id, wanted) in turnover.stale_ranges {
            self.finish_ranges(id, wanted);
        }
        let (addresses, ports): (Vec<_>, Vec<_>) =
            inserts.into_iter().partition(|(key, _)| is_address(&key));
        self.insert_frontends(ports.into_iter().chain(addresses).collect());
    }

    /// Frees the indexes of services that are gone: nothing leads there any more, and no range lets
    /// anybody in. What the kernel refuses is tried again with the next batch.
    fn bury(&mut self) {
        self.departing.retain(|index, Installed { frontends, set, .. }| {
            let is_gone = frontends.is_empty()
                && set.narrow(*index, &[], &mut self.maps, &mut self.pools).is_ok();
            if is_gone {
                self.pools.services.retire(*index);
            }
            !is_gone
        });
    }

    /// Hands over frontends that one service gives up, or loses, and another takes, each by one
    /// replacing update, so that no client finds the address unserved. Returns what is for later:
    /// entries that are new, and addresses that have kept their other ports so far: those of the
    /// Service must be there before the others are refused.
    fn move_frontends(&mut self, turnover: &mut Turnover) -> Vec<(FrontendKey, Claim)> {
        let mut later = Vec::new();
        for key in turnover.drop.iter().chain(&turnover.retry) {
            let claims = self.waiting.take(key);
            if !claims.is_empty() {
                turnover.put.entry(*key).or_default().extend(claims);
            }
        }
        for (key, mut claims) in std::mem::take(&mut turnover.put) {
            let present = self.frontends.get(&key).copied();
            let given_up = turnover.drop.remove(&key);
            let kept = present.filter(|_| !given_up);
            if kept.is_some_and(|entry| self.is_unclaimed(entry, &claims)) {
                claims.into_iter().for_each(|claim| self.waiting.add(key, claim));
                continue;
            }
            let holder = kept.and_then(|entry| {
                let id = self.owners.get(&entry.service())?.clone();
                Some(Claim::of_holder(id, entry.kind()))
            });
            // A claim of the holder's own is a change of kind, by which others may come to have a
            // better right.
            let own =
                claims.iter().find(|c| holder.as_ref().is_some_and(|h| h.id == c.id)).cloned();
            let holder = holder.filter(|_| own.is_none());
            if let Some(own) = own {
                claims.remove(&own);
                claims.insert(Claim::of_holder(own.id, own.kind));
                claims.extend(self.waiting.take(&key));
            }
            claims.extend(holder.clone());
            let winner = claims.pop_first().expect("a key is put because somebody claims it");
            if Some(&winner) != holder.as_ref() {
                let lenient = present.is_some_and(|entry| keeps_ports(entry.kind()));
                if present.is_none() || (lenient && !given_up && !keeps_ports(winner.kind)) {
                    later.push((key, winner));
                } else if !self.put(key, winner, given_up) {
                    // The holder still has it.
                    claims.retain(|claim| Some(claim) != holder.as_ref());
                }
            }
            claims.into_iter().for_each(|claim| self.waiting.add(key, claim));
        }
        later
    }

    /// Whether an entry was left by an earlier agent, whose Service may just not have been read,
    /// and none of the claims is certain to be that Service's, or to go before it.
    fn is_unclaimed(&self, entry: FrontendEntry, claims: &BTreeSet<Claim>) -> bool {
        self.adopted.contains_key(&entry.service())
            && !claims.first().is_some_and(|claim| claim.outranks_unknown(entry.kind()))
    }

    /// Waits for what was freed, if anything was, and inserts.
    fn insert_frontends(&mut self, inserts: Vec<(FrontendKey, Claim)>) {
        if self.freed
            && !inserts.is_empty()
            && let Err(error) = self.grace()
        {
            let error = cannot_wait(&error);
            for (key, claim) in inserts {
                self.stuck.insert(key, Stuck { given_up: false, error: error.clone() });
                self.waiting.add(key, claim);
            }
            return;
        }
        for (key, claim) in inserts {
            self.put(key, claim, false);
        }
    }

    /// Makes `key` lead to the service of `claim`, whoever had it. If that fails, the claim waits.
    fn put(&mut self, key: FrontendKey, claim: Claim, given_up: bool) -> bool {
        let Some(installed) = self.services.get(&claim.id) else { return false };
        let entry = FrontendEntry::new(&key, claim.kind, installed.index);
        if let Err(error) = self.maps.put_frontend(&key, entry) {
            self.stuck.insert(key, Stuck { given_up, error: failed(&error) });
            self.waiting.add(key, claim);
            return false;
        }
        if let Some(former) = self.frontends.insert(key, entry) {
            // A replaced element is freed, too.
            self.freed = true;
            self.take_from(former, &key);
        }
        self.at(entry.service()).expect("looked up above").frontends.insert(key);
        true
    }

    fn delete(&mut self, key: &FrontendKey) {
        if let Err(error) = self.maps.delete_frontend(key) {
            self.stuck.insert(*key, Stuck { given_up: true, error: failed(&error) });
            return;
        }
        self.freed = true;
        if let Some(former) = self.frontends.remove(key) {
            self.take_from(former, key);
        }
    }

    fn take_from(&mut self, former: FrontendEntry, key: &FrontendKey) {
        self.gave_up.insert(former.service());
        self.narrowed |= former.kind().is_port();
        if let Some(former) = self.at(former.service()) {
            former.frontends.remove(key);
        }
    }
}

/// Whether an address of this kind keeps the ports that no Service defines.
fn keeps_ports(kind: FrontendKind) -> bool {
    matches!(kind, FrontendKind::Foreign | FrontendKind::ExternalAddress)
}

fn failed(error: &io::Error) -> String {
    format!("cannot write map FRONTENDS: {error}")
}
