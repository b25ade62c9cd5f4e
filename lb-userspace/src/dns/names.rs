//! One Service and its endpoints → what its names lead to. Pure.
//!
//! The rules are those of the Kubernetes DNS specification 1.1.0, sections 2.3 (ClusterIP), 2.4
//! (headless) and 2.5 (ExternalName).

use std::net::IpAddr;
use std::sync::Arc;

use hickory_server::proto::rr::Name;

use crate::plan::Protocol;
use crate::store::model::{Service, ServiceType, Slice, SlicePort};

/// What the names of one Service lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// A Service with ClusterIPs.
    Virtual {
        /// Its ClusterIPs.
        addresses: Box<[IpAddr]>,
        /// Its ports; those without a name have no record.
        ports: Box<[SlicePort]>,
    },
    /// A headless Service: its ready endpoints, as [`Names::headless`] orders them.
    Headless(Box<[Host]>),
    /// An ExternalName.
    Alias(Name),
}

/// One ready endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its `hostname`; without one its name is made from its address.
    pub hostname: Option<Arc<str>>,
    /// Its address.
    pub address: IpAddr,
    /// Its ports, by the names of the Service's.
    pub ports: Arc<[SlicePort]>,
}

impl Host {
    /// The order within a Service.
    fn key(&self) -> (&Option<Arc<str>>, IpAddr) {
        (&self.hostname, self.address)
    }

    /// The label under its Service's name.
    pub fn label(&self) -> String {
        match &self.hostname {
            Some(hostname) => hostname.to_ascii_lowercase(),
            None => label_of(self.address),
        }
    }

    /// The number of a port.
    pub fn port(&self, name: &[u8], protocol: Protocol) -> Option<u16> {
        port(&self.ports, name, protocol)
    }
}

impl Names {
    /// The names of `service`, whose endpoints are those of `slices`.
    pub fn of(service: &Service, slices: &[&Slice]) -> Option<Self> {
        Some(match service.service_type {
            ServiceType::Virtual => Self::Virtual {
                addresses: service.cluster_ips.clone(),
                ports: service
                    .ports
                    .iter()
                    .map(|port| SlicePort {
                        name: Arc::clone(&port.name),
                        protocol: port.protocol,
                        port: port.port,
                    })
                    .collect(),
            },
            ServiceType::Headless => Self::headless(hosts(slices)),
            ServiceType::ExternalName => {
                let mut target = Name::from_ascii(service.external_name.as_deref()?).ok()?;
                target.set_fqdn(true);
                Self::Alias(target)
            }
        })
    }

    /// The names of a headless Service with these ready endpoints.
    pub fn headless(mut hosts: Vec<Host>) -> Self {
        hosts.sort_by(|a, b| a.key().cmp(&b.key()));
        // An endpoint on its way from one slice to another can stand in both.
        hosts.dedup_by(|later, first| later.key() == first.key() && later.ports == first.ports);
        Self::Headless(hosts.into())
    }

    /// The endpoints of that name, of a headless Service.
    pub fn hosts_named<'a>(hosts: &'a [Host], label: &[u8]) -> &'a [Host] {
        let by_name = equal_range(hosts, |host| match &host.hostname {
            Some(hostname) => hostname.as_bytes().cmp(label),
            None => std::cmp::Ordering::Less,
        });
        if !by_name.is_empty() {
            return by_name;
        }
        let Some(address) = address_of(label) else { return &[] };
        equal_range(hosts, |host| host.key().cmp(&(&None, address)))
    }

    /// The number of a named port that SRV records tell of, if the Service has it.
    pub fn has_port(&self, name: &[u8], protocol: Protocol) -> bool {
        match self {
            Self::Virtual { ports, .. } => port(ports, name, protocol).is_some(),
            Self::Headless(hosts) => hosts.iter().any(|host| host.port(name, protocol).is_some()),
            Self::Alias(_) => false,
        }
    }

    /// Whether there is any named port of a protocol.
    pub fn has_protocol(&self, protocol: Protocol) -> bool {
        let named = |port: &SlicePort| !port.name.is_empty() && port.protocol == protocol;
        match self {
            Self::Virtual { ports, .. } => ports.iter().any(named),
            Self::Headless(hosts) => hosts.iter().any(|host| host.ports.iter().any(named)),
            Self::Alias(_) => false,
        }
    }
}

/// The number of a named port.
pub(super) fn port(ports: &[SlicePort], name: &[u8], protocol: Protocol) -> Option<u16> {
    let found = ports.iter().find(|port| {
        port.protocol == protocol
            && !port.name.is_empty()
            && port.name.as_bytes().eq_ignore_ascii_case(name)
    });
    found.map(|port| port.port)
}

fn hosts(slices: &[&Slice]) -> Vec<Host> {
    let mut hosts = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family.is_some()) {
        let ready = slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready);
        hosts.extend(ready.map(|endpoint| Host {
            hostname: endpoint.hostname.clone(),
            address: endpoint.address,
            ports: Arc::clone(&slice.ports),
        }));
    }
    hosts
}

/// The name of an endpoint without one: its address, with a hyphen for each dot or colon.
pub(super) fn label_of(address: IpAddr) -> String {
    let mut label = address.to_string().replace(['.', ':'], "-");
    // A label neither begins nor ends with a hyphen (RFC 1123, section 2.1).
    if label.starts_with('-') {
        label.insert(0, '0');
    }
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

/// The address that an endpoint of this generated name has.
fn address_of(label: &[u8]) -> Option<IpAddr> {
    let label = std::str::from_utf8(label).ok()?;
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    let address = v4.or_else(|_| label.replace('-', ":").parse().map(IpAddr::V6)).ok()?;
    (label_of(address) == label).then_some(address)
}

/// The elements for which `order` says equal, of a slice sorted by it.
fn equal_range<T>(sorted: &[T], order: impl Fn(&T) -> std::cmp::Ordering) -> &[T] {
    let start = sorted.partition_point(|element| order(element).is_lt());
    let length = sorted[start..].partition_point(|element| order(element).is_eq());
    &sorted[start..start + length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_leads_back_to_its_address() {
        for (address, label) in [
            ("10.0.0.1", "10-0-0-1"),
            ("fd00::5", "fd00--5"),
            ("::5", "0--5"),
            ("fd00::", "fd00--0"),
            ("2001:db8:1:2:3:4:5:6", "2001-db8-1-2-3-4-5-6"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(label_of(address), label);
            assert_eq!(address_of(label.as_bytes()), Some(address), "{label}");
        }
        for label in ["10-0-0", "10-0-0-01", "fd00-0-0-0-0-0-0-5", "web", "", "-", "\u{e4}"] {
            assert_eq!(address_of(label.as_bytes()), None, "{label}");
        }
    }
}
