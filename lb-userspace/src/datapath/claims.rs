//! Who gets a frontend that several service ports want.
//!
//! ClusterIPs are allocated, each to one Service. Nobody allocates external IPs: two Services may
//! name the same one, or a ClusterIP of another, or a node's address. The rank decides, then who
//! has it already. Who loses waits: everything else of its Service is served. An external address
//! itself, whatever the port, is everybody's who names it, and waits without a word.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{FrontendKey, FrontendKind};

use crate::plan::ServicePortId;

/// A service port's wish for a frontend. Of two, the smaller one goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    rank: Rank,
    /// A frontend stays with the one who has it, unless somebody has a better right.
    challenges: bool,
    pub(super) id: ServicePortId,
    pub(super) kind: FrontendKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// By allocation.
    ClusterIp,
    /// By allocation of the port.
    NodePort,
    /// By mere assertion.
    External,
    /// By mere assertion, of what several may have.
    ExternalAddress,
}

impl Claim {
    /// A claim to what others may have.
    pub(super) fn new(id: ServicePortId, kind: FrontendKind) -> Self {
        Self { rank: Rank::of(kind), challenges: true, id, kind }
    }

    /// The claim of the one who has it.
    pub(super) fn of_holder(id: ServicePortId, kind: FrontendKind) -> Self {
        Self { challenges: false, ..Self::new(id, kind) }
    }

    /// Whether it goes before whoever has an entry of this kind, though it is not known who that
    /// is: by its rank, or because what was allocated is nobody else's.
    pub(super) fn outranks_unknown(&self, kind: FrontendKind) -> bool {
        let other = Rank::of(kind);
        self.rank < other || (self.rank == other && other < Rank::External)
    }
}

impl Rank {
    fn of(kind: FrontendKind) -> Self {
        match kind {
            FrontendKind::ClusterIp | FrontendKind::Address | FrontendKind::Foreign => {
                Self::ClusterIp
            }
            FrontendKind::NodePort => Self::NodePort,
            FrontendKind::External | FrontendKind::LoadBalancer => Self::External,
            FrontendKind::ExternalAddress => Self::ExternalAddress,
        }
    }
}

/// Whether a frontend of this kind is a ClusterIP's, which is allocated to one Service.
pub(super) fn is_cluster_ip(kind: FrontendKind) -> bool {
    Rank::of(kind) == Rank::ClusterIp
}

/// Whether a frontend of this kind is a port of an address that its Service merely asserts.
pub(super) fn is_asserted(kind: FrontendKind) -> bool {
    Rank::of(kind) == Rank::External
}

/// Claims to frontends that others have.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    by_key: BTreeMap<FrontendKey, BTreeSet<Claim>>,
    by_id: BTreeMap<ServicePortId, BTreeMap<FrontendKey, FrontendKind>>,
}

impl Waiting {
    /// Notes a claim that lost.
    pub(super) fn add(&mut self, key: FrontendKey, claim: Claim) {
        self.by_id.entry(claim.id.clone()).or_default().insert(key, claim.kind);
        let claim = Claim { challenges: true, ..claim };
        self.by_key.entry(key).or_default().insert(claim);
    }

    /// Takes away every claim to `key`, which is free now or disputed again.
    pub(super) fn take(&mut self, key: &FrontendKey) -> BTreeSet<Claim> {
        let claims = self.by_key.remove(key).unwrap_or_default();
        for claim in &claims {
            if let Some(keys) = self.by_id.get_mut(&claim.id) {
                keys.remove(key);
            }
        }
        claims
    }

    /// Takes away every claim of `id`, which is planned anew or gone.
    pub(super) fn withdraw(&mut self, id: &ServicePortId) {
        for key in self.by_id.remove(id).unwrap_or_default().into_keys() {
            if let Some(claims) = self.by_key.get_mut(&key) {
                claims.retain(|claim| claim.id != *id);
                if claims.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// Every claim, by the one who makes it.
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (&ServicePortId, &BTreeMap<FrontendKey, FrontendKind>)> {
        self.by_id.iter().filter(|(_, keys)| !keys.is_empty())
    }
}
