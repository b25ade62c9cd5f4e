//! `SOURCE_RANGES`: who may come by a load balancer's address.
//!
//! A range is there before a policy asks for it, and goes when no program asks for it any more: in
//! between, the old ranges and the new ones let clients in.

use std::collections::BTreeSet;

use ipnet::IpNet;
use lb_common::abi::{Address, FrontendKey, FrontendKind, Policy, RangeKey};

use super::maps::Maps;
use super::pools::{Obstacle, Pools};
use super::set::Set;
use super::turnover::Turnover;
use super::writer::{Installed, Writer, cannot_wait, keys};
use crate::plan::{ServicePortId, Wanted};

/// One range as the trie holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceRange {
    /// Length of the prefix, that of the service index included.
    pub(super) prefix: u32,
    /// First address.
    pub(super) address: Address,
}

impl From<&IpNet> for SourceRange {
    fn from(net: &IpNet) -> Self {
        let v4_in_v6 = if net.addr().is_ipv4() { 96 } else { 0 };
        let prefix = RangeKey::prefix(v4_in_v6 + net.prefix_len());
        Self { prefix, address: net.network().into() }
    }
}

impl Set {
    /// How many of these ranges are not there yet.
    pub(super) fn missing_ranges(&self, ranges: &[IpNet]) -> usize {
        ranges.iter().filter(|range| !self.ranges.contains(&SourceRange::from(*range))).count()
    }

    /// Lets the clients of these ranges in, too.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one; those before it are there.
    pub(super) fn widen(
        &mut self,
        index: u32,
        ranges: &[IpNet],
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) -> Result<(), Obstacle> {
        for range in ranges.iter().map(SourceRange::from) {
            if !self.ranges.contains(&range) {
                maps.put_range(index, &range).map_err(Obstacle::Ranges)?;
                self.ranges.insert(range);
                pools.ranges.used += 1;
            }
        }
        Ok(())
    }

    /// Lets only the clients of these ranges in.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to delete one; those before it are gone.
    pub(super) fn narrow(
        &mut self,
        index: u32,
        ranges: &[IpNet],
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) -> Result<(), Obstacle> {
        for range in self.stale_ranges(ranges) {
            maps.delete_range(index, &range).map_err(Obstacle::Ranges)?;
            self.ranges.remove(&range);
            pools.ranges.used -= 1;
        }
        Ok(())
    }

    /// The ranges that are there besides these.
    fn stale_ranges(&self, ranges: &[IpNet]) -> BTreeSet<SourceRange> {
        let wanted: BTreeSet<_> = ranges.iter().map(SourceRange::from).collect();
        self.ranges.difference(&wanted).copied().collect()
    }
}

impl<M: Maps> Writer<M> {
    /// The wanted policy; as restricted as before while an entry leads to the service as a load
    /// balancer's that is to go, or to be an external IP's: what is wanted is not meant for it. But no
    /// new balancer's address is ever open to all that should not be.
    pub(super) fn policy_for_now(&self, id: &ServicePortId, wanted: &Wanted) -> Policy {
        let Some(installed) = self.services.get(id) else { return wanted.policy };
        let has = |key: &FrontendKey| self.is_balancer(installed, key);
        let wants: BTreeSet<FrontendKey> = keys(id, wanted)
            .into_iter()
            .filter_map(|(key, kind)| (kind == FrontendKind::LoadBalancer).then_some(key))
            .collect();
        let lingers = installed.frontends.iter().any(|key| has(key) && !wants.contains(key));
        let comes = wants.iter().any(|key| !has(key));
        let was = installed.set.policy.restricted;
        let restricted = if lingers && (was || !comes) { was } else { wanted.policy.restricted };
        Policy { restricted, ..wanted.policy }
    }

    /// Takes old ranges away if nobody comes by them, and else when frontends are as they should be.
    pub(super) fn schedule_ranges(
        &mut self,
        id: ServicePortId,
        wanted: Wanted,
        turnover: &mut Turnover,
    ) {
        let Some(installed) = self.services.get(&id) else { return };
        let Installed { set, frontends, .. } = installed;
        let is_done = set.policy.restricted == wanted.policy.restricted
            && set.stale_ranges(&wanted.source_ranges).is_empty();
        if is_done {
            return;
        }
        if frontends.iter().any(|key| self.is_balancer(installed, key)) {
            turnover.stale_ranges.insert(id, wanted);
        } else {
            self.finish_ranges(id, wanted);
        }
    }

    /// Makes the policy as restricted as it should be, and takes old ranges away. What cannot be done
    /// at present is tried again with the next batch.
    pub(super) fn finish_ranges(&mut self, id: ServicePortId, wanted: Wanted) {
        if let Err(message) = self.finish_ranges_of(&id, &wanted) {
            self.unfinished.insert(id, (wanted, message));
        }
    }

    /// Whether an entry leads to what is installed as a load balancer's.
    fn is_balancer(&self, installed: &Installed, key: &FrontendKey) -> bool {
        let entry = self.frontends.get(key).filter(|entry| entry.service() == installed.index);
        entry.is_some_and(|entry| entry.kind() == FrontendKind::LoadBalancer)
    }

    fn finish_ranges_of(&mut self, id: &ServicePortId, wanted: &Wanted) -> Result<(), String> {
        let Some(Installed { index, set, .. }) = self.services.get(id) else { return Ok(()) };
        let (index, was_restricted) = (*index, set.policy.restricted);
        if was_restricted != wanted.policy.restricted {
            if self.gave_up.contains(&index) {
                // A program may have come by the load balancer's address that it has lost.
                self.grace().map_err(|error| cannot_wait(&error))?;
            }
            self.update_set(id, wanted).map_err(|error| error.to_string())?;
        }
        let is_restricted = self.services[id].set.policy.restricted;
        if is_restricted != wanted.policy.restricted {
            return Err("a load balancer's address could not be taken away".to_owned());
        }
        // A program may have loaded the policy of before, or have come by what was a load balancer's address then.
        self.grace().map_err(|error| cannot_wait(&error))?;
        let installed = self.services.get_mut(id).expect("looked up above");
        let (maps, pools) = (&mut self.maps, &mut self.pools);
        let narrowed = installed.set.narrow(index, &wanted.source_ranges, maps, pools);
        self.narrowed = true;
        narrowed.map_err(|error| error.to_string())
    }
}
