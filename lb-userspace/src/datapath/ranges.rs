//! `SOURCE_RANGES`: who may come by a load balancer's address.
//!
//! A range is there before a policy asks for it, and goes when no program asks for it any more: in
//! between, the old ranges and the new ones let clients in.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lb_common::abi::{Address, FrontendKind, Policy, RangeKey};

use super::maps::Maps;
use super::pools::{Obstacle, Pools};
use super::set::Set;
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
    /// The wanted policy; still a restricted one while an entry leads to the service as a load
    /// balancer's that is to go, or to be an external IP's: it was never open to all.
    pub(super) fn policy_for_now(&self, id: &ServicePortId, wanted: &Wanted) -> Policy {
        let Some(Installed { set, frontends, .. }) = self.services.get(id) else {
            return wanted.policy;
        };
        let wanted_keys = keys(id, wanted);
        let is_balancer = |kind| kind == FrontendKind::LoadBalancer;
        let lingers = frontends.iter().any(|key| {
            let stays = wanted_keys.get(key).copied().is_some_and(is_balancer);
            !stays && self.frontends.get(key).is_some_and(|entry| is_balancer(entry.kind()))
        });
        let restricted = wanted.policy.restricted || (set.policy.restricted && lingers);
        Policy { restricted, ..wanted.policy }
    }

    /// Whether something is left to do for [`Self::finish_ranges`].
    pub(super) fn has_stale_ranges(&self, id: &ServicePortId, wanted: &Wanted) -> bool {
        self.services.get(id).is_some_and(|Installed { set, .. }| {
            set.policy.restricted != wanted.policy.restricted
                || !set.stale_ranges(&wanted.source_ranges).is_empty()
        })
    }

    /// When frontends are as they should be: lifts the restrictions that nobody wants, and takes old
    /// ranges away. Returns what cannot be done at present.
    pub(super) fn finish_ranges(
        &mut self,
        ids: BTreeMap<ServicePortId, Wanted>,
    ) -> Vec<(ServicePortId, Wanted, String)> {
        let mut unfinished = Vec::new();
        for (id, wanted) in ids {
            if let Err(message) = self.finish_ranges_of(&id, &wanted) {
                unfinished.push((id, wanted, message));
            }
        }
        unfinished
    }

    fn finish_ranges_of(&mut self, id: &ServicePortId, wanted: &Wanted) -> Result<(), String> {
        let Some(Installed { index, set, .. }) = self.services.get(id) else { return Ok(()) };
        let (index, was_restricted) = (*index, set.policy.restricted);
        if was_restricted && !wanted.policy.restricted {
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
        if !is_restricted {
            // A program may have loaded the policy of before.
            self.grace().map_err(|error| cannot_wait(&error))?;
        }
        let installed = self.services.get_mut(id).expect("looked up above");
        let (maps, pools) = (&mut self.maps, &mut self.pools);
        let narrowed = installed.set.narrow(index, &wanted.source_ranges, maps, pools);
        narrowed.map_err(|error| error.to_string())
    }
}
