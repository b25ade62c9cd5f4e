//! The cluster's zones: every Service's names, and the answer to a question about them.
//!
//! Kubernetes DNS-Based Service Discovery 1.1.0; where that is silent, as CoreDNS' plugin `kubernetes`
//! does. A name that exists without records of the type asked is `NOERROR` without data, a name that
//! does not is `NXDOMAIN` (RFC 8020: so a name exists if one below it does).

mod records;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_server::proto::op::LowerQuery;
use hickory_server::proto::rr::rdata::{PTR, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use super::names::{Host, Names};
use super::reverse;
use crate::object::Key;
use crate::plan::Protocol;

/// The version of the specification that these names follow.
const VERSION: &str = "1.1.0";

/// How long after the start a name that is not here may be one that a source has not brought yet.
const GRACE: Duration = Duration::from_secs(30);

/// An answer, as far as the zones have one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The name is in none of the zones.
    Elsewhere,
    /// Not every source has been heard: the name may exist.
    NotYet,
    /// Records of the type asked; never none.
    Found {
        /// Of the name asked.
        records: Vec<RData>,
        /// Of the names that those lead to.
        additional: Vec<Record>,
    },
    /// The name stands for another.
    Alias(Name),
    /// The name exists, without records of that type.
    NoData(Soa),
    /// There is no such name.
    NoName(Soa),
}

/// What is asked of a name.
#[derive(Clone, Copy, Debug)]
struct Asked {
    record_type: RecordType,
    /// So many records at most.
    most: usize,
}

/// The start of authority that an answer without records is given with, so that resolvers know how
/// long it holds (RFC 2308). Boxed: most answers have none.
pub(super) type Soa = Box<Record>;

/// All names.
#[derive(Debug)]
pub(super) struct Zone {
    /// `cluster.local.`, in lower case.
    domain: Name,
    /// Seconds.
    ttl: u32,
    /// Ranges whose reverse names are this zone's, too.
    ranges: Vec<IpNet>,
    /// Namespace → name → what it leads to. A namespace without Services is not there.
    services: HashMap<Arc<str>, HashMap<Arc<str>, Names>>,
    /// Address → the names that lead to it.
    reverse: BTreeMap<IpAddr, BTreeSet<Name>>,
    /// Where this server itself is reached.
    server: Option<(Arc<str>, Arc<str>)>,
    /// Until when a name that is not here may exist; `None` once every source has been heard.
    incomplete: Option<Instant>,
    /// Counts changes.
    serial: u32,
}

impl Zone {
    /// A zone without Services.
    pub(super) fn new(domain: &Name, ttl: u32, ranges: Vec<IpNet>) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Self {
            domain,
            ttl,
            ranges,
            services: HashMap::new(),
            reverse: BTreeMap::new(),
            server: None,
            incomplete: Some(Instant::now() + GRACE),
            serial: 1,
        }
    }

    /// The domain under which Services have names.
    pub(super) const fn domain(&self) -> &Name {
        &self.domain
    }

    /// How long an answer holds, in seconds.
    pub(super) const fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Says which Service is this server, if any.
    pub(super) fn set_server(&mut self, service: Option<&Key>) {
        let name = |service: &Key| (Arc::clone(&service.namespace), Arc::clone(&service.name));
        self.server = service.map(name);
    }

    /// Every source has been heard: from now on a name that is not here does not exist. A source that
    /// cannot be heard delays that for [`GRACE`] only: resolvers that go through a search list end it
    /// at `SERVFAIL`, and would find no name elsewhere.
    pub(super) const fn set_complete(&mut self) {
        self.incomplete = None;
    }

    /// Sets or removes the names of one Service.
    pub(super) fn set(&mut self, service: &Key, names: Option<Names>) {
        let before = self.services.get(&service.namespace).and_then(|all| all.get(&service.name));
        if before == names.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        if let Some(before) = before {
            for (address, name) in self.reverse_names(service, before) {
                if let Some(known) = self.reverse.get_mut(&address) {
                    known.remove(&name);
                    if known.is_empty() {
                        self.reverse.remove(&address);
                    }
                }
            }
        }
        let Some(names) = names else {
            if let Some(all) = self.services.get_mut(&service.namespace) {
                all.remove(&service.name);
                if all.is_empty() {
                    self.services.remove(&service.namespace);
                }
            }
            return;
        };
        for (address, name) in self.reverse_names(service, &names) {
            self.reverse.entry(address).or_default().insert(name);
        }
        let all = self.services.entry(Arc::clone(&service.namespace)).or_default();
        all.insert(Arc::clone(&service.name), names);
    }

    /// The answer to a question. Of many records it has `most`, at random.
    pub(super) fn answer(&self, query: &LowerQuery, most: usize) -> Answer {
        let name: &Name = query.name();
        let asked = Asked { record_type: query.query_type(), most };
        let answer = if self.domain.zone_of_case(name) {
            let depth = depth(name) - depth(&self.domain);
            let labels: Vec<&[u8]> = name.iter().take(depth).collect();
            self.forward(name, &labels, asked)
        } else {
            self.backward(name, asked)
        };
        let denied = matches!(answer, Answer::NoName(_));
        if denied && self.incomplete.is_some_and(|until| Instant::now() < until) {
            Answer::NotYet
        } else {
            answer
        }
    }

    /// A name below the domain, of which `labels` are those in front of it.
    fn forward(&self, name: &Name, labels: &[&[u8]], asked: Asked) -> Answer {
        match labels {
            [] => self.apex(name, asked),
            [b"dns-version"] if asked.record_type == RecordType::TXT => {
                self.found(vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))], Vec::new())
            }
            [b"dns-version"] | [b"dns"] | [b"svc"] => self.no_data(),
            [b"ns", b"dns"] => self.addresses(self.server_addresses().iter().copied(), asked),
            [namespace, b"svc"] if self.namespace(namespace).is_some() => self.no_data(),
            [below @ .., service, namespace, b"svc"] => {
                let found = self.namespace(namespace).zip(std::str::from_utf8(service).ok());
                match found.and_then(|(services, service)| services.get(service)) {
                    Some(names) => {
                        let service = || name.trim_to(depth(name) - below.len());
                        self.service(names, below, asked, service)
                    }
                    None => self.no_name(),
                }
            }
            _ => self.no_name(),
        }
    }

    /// A name of a Service; `below` are the labels in front of it.
    fn service(
        &self,
        names: &Names,
        below: &[&[u8]],
        asked: Asked,
        service: impl Fn() -> Name,
    ) -> Answer {
        match (names, below) {
            (Names::Alias(target), []) => Answer::Alias(target.clone()),
            (Names::Virtual { addresses, .. }, []) => {
                self.addresses(addresses.iter().copied(), asked)
            }
            (Names::Headless(hosts), []) if !hosts.is_empty() => {
                self.addresses(hosts.iter().map(|host| host.address), asked)
            }
            (Names::Headless(hosts), [label]) if !label.starts_with(b"_") => {
                let hosts = Names::hosts_named(hosts, label);
                if hosts.is_empty() {
                    return self.no_name();
                }
                self.addresses(hosts.iter().map(|host| host.address), asked)
            }
            (names, [label]) => match protocol(label) {
                Some(protocol) if names.has_protocol(protocol) => self.no_data(),
                Some(_) | None => self.no_name(),
            },
            (names, [port, label]) => match (port.strip_prefix(b"_"), protocol(label)) {
                (Some(port), Some(protocol)) if names.has_port(port, protocol) => {
                    if asked.record_type != RecordType::SRV {
                        return self.no_data();
                    }
                    self.ports(names, port, protocol, &service(), asked.most)
                }
                (_, _) => self.no_name(),
            },
            (_, _) => self.no_name(),
        }
    }

    /// A name below `in-addr.arpa` or `ip6.arpa`. Of ranges of ClusterIPs all are known here, of other
    /// addresses those of headless Services' endpoints.
    fn backward(&self, name: &Name, asked: Asked) -> Answer {
        let Some((addresses, below)) = reverse::parse(name) else { return Answer::Elsewhere };
        let zone = self.ranges.iter().find(|range| range.contains(&addresses));
        let zone = zone.map(|range| reverse::zone(name, below, range));
        let is_host = addresses.prefix_len() == addresses.max_prefix_len() && below == 0;
        let names = self.reverse.get(&addresses.addr()).filter(|_| is_host);
        match (names, zone) {
            (Some(names), _) if asked.record_type == RecordType::PTR => {
                let records = names.iter().take(asked.most);
                self.found(records.map(|name| RData::PTR(PTR(name.clone()))).collect(), Vec::new())
            }
            (Some(_), zone) => Answer::NoData(self.soa(zone.as_ref().unwrap_or(name))),
            (None, Some(zone)) if zone == *name => self.apex(name, asked),
            (None, Some(zone)) => {
                let known = || self.reverse.range(reverse::span(addresses)).next().is_some();
                if below == 0 && known() {
                    Answer::NoData(self.soa(&zone))
                } else {
                    Answer::NoName(self.soa(&zone))
                }
            }
            (None, None) => Answer::Elsewhere,
        }
    }

    /// Where this server itself is reached: its ClusterIPs.
    pub(super) fn server_addresses(&self) -> &[IpAddr] {
        let server = self.server.as_ref();
        let names = server.and_then(|(namespace, name)| self.services.get(namespace)?.get(name));
        match names {
            Some(Names::Virtual { addresses, .. }) => addresses,
            Some(Names::Headless(_) | Names::Alias(_)) | None => &[],
        }
    }

    fn namespace(&self, label: &[u8]) -> Option<&HashMap<Arc<str>, Names>> {
        self.services.get(std::str::from_utf8(label).ok()?)
    }

    /// What the addresses of a Service, or of its endpoints, are called.
    fn reverse_names(&self, service: &Key, names: &Names) -> Vec<(IpAddr, Name)> {
        let Some(name) = self.service_name(service) else { return Vec::new() };
        match names {
            Names::Virtual { addresses, .. } => {
                addresses.iter().map(|address| (*address, name.clone())).collect()
            }
            Names::Headless(hosts) => {
                let named =
                    |host: &Host| Some((host.address, name.prepend_label(host.label()).ok()?));
                hosts.iter().filter_map(named).collect()
            }
            Names::Alias(_) => Vec::new(),
        }
    }

    fn service_name(&self, service: &Key) -> Option<Name> {
        let labels = [service.name.as_bytes(), service.namespace.as_bytes(), b"svc"];
        Name::from_labels(labels).ok()?.append_name(&self.domain).ok()
    }
}

/// `_tcp` or `_udp`.
fn protocol(label: &[u8]) -> Option<Protocol> {
    match label {
        b"_tcp" => Some(Protocol::Tcp),
        b"_udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// How many labels a name has; `Name::num_labels` leaves out a leading `*`.
fn depth(name: &Name) -> usize {
    name.iter().count()
}
