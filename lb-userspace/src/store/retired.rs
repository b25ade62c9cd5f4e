//! The addresses of Services that went, for the case that they come back.
//!
//! A manifest file that is renamed may be seen as one that goes and one that comes. Nothing is kept
//! *from* others here: an address that somebody took meanwhile is gone.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::object::{Key, Object};
use crate::plan::Family;

/// At about 200 bytes each, at most 2 MB; a folder of 10,000 Services can be renamed.
const REMEMBERED: usize = 10_000;

/// The latest [`REMEMBERED`] Services that went.
#[derive(Debug, Default)]
pub(super) struct Retired {
    by_key: BTreeMap<Key, Addresses>,
    /// Oldest first; a key that stands here twice is forgotten early, which harms nothing.
    order: VecDeque<Key>,
}

/// What a Service had.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Addresses {
    cluster_ips: Vec<String>,
    policy: Option<String>,
    families: Option<Vec<String>>,
}

impl Retired {
    pub(super) fn add(&mut self, gone: BTreeMap<Key, Addresses>) {
        for (key, addresses) in gone {
            self.order.push_back(key.clone());
            self.by_key.insert(key, addresses);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_key.remove(&oldest);
            }
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Addresses> {
        self.by_key.get(key)
    }
}

impl Addresses {
    /// Those of a stored Service.
    pub(super) fn of(object: &Object) -> Option<Self> {
        let Object::Service(service) = object else { return None };
        let spec = service.spec.as_ref()?;
        let cluster_ips = spec.cluster_ips.clone()?;
        let all_parse = cluster_ips.iter().all(|ip| ip.parse::<IpAddr>().is_ok());
        (all_parse && !cluster_ips.is_empty()).then(|| Self {
            cluster_ips,
            policy: spec.ip_family_policy.clone(),
            families: spec.ip_families.clone(),
        })
    }

    /// `object` with these addresses, if it leaves the choice to us and wants the same families.
    pub(super) fn given_to(&self, object: &Object, default: Family) -> Option<Object> {
        let Object::Service(service) = object else { return None };
        let spec = service.spec.as_ref()?;
        let chosen = spec.cluster_ip.as_ref().is_some_and(|ip| !ip.is_empty())
            || spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())
            || spec.type_.as_deref() == Some("ExternalName");
        let first: IpAddr = self.cluster_ips.first()?.parse().ok()?;
        let same_policy = match &spec.ip_family_policy {
            Some(_) => spec.ip_family_policy == self.policy,
            None => self.cluster_ips.len() == 1,
        };
        let same_families = match &spec.ip_families {
            Some(_) => spec.ip_families == self.families,
            None => Family::of(first) == default,
        };
        if chosen || !same_policy || !same_families {
            return None;
        }
        let mut service = service.clone();
        let spec = service.spec.as_mut()?;
        spec.cluster_ip = self.cluster_ips.first().cloned();
        spec.cluster_ips = Some(self.cluster_ips.clone());
        Some(Object::Service(service))
    }
}
