//! The records of an answer.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use hickory_server::proto::rr::rdata::{A, AAAA, NS, SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use super::{Answer, Asked, Soa, Zone};
use crate::dns::names::{self, Names};
use crate::plan::Protocol;

impl Zone {
    /// The SRV records of a port that exists, with the addresses that they lead to.
    pub(super) fn ports(
        &self,
        names: &Names,
        port: &[u8],
        protocol: Protocol,
        service: &Name,
        most: usize,
    ) -> Answer {
        let mut targets: Vec<(Name, u16)> = Vec::new();
        let mut additional = Vec::new();
        let mut glue = HashSet::new();
        let mut lead_to = |name: &Name, address: IpAddr| {
            if !glue.insert((name.clone(), address)) {
                return;
            }
            additional.push(Record::from_rdata(name.clone(), self.ttl, rdata(address)));
        };
        match names {
            Names::Virtual { addresses, ports } => {
                let number = names::port(ports, port, protocol).unwrap_or_default();
                targets.push((service.clone(), number));
                addresses.iter().for_each(|address| lead_to(service, *address));
            }
            Names::Headless(hosts) => {
                for host in some(hosts, most) {
                    let Some(number) = host.port(port, protocol) else { continue };
                    let Ok(target) = service.prepend_label(host.label()) else { continue };
                    lead_to(&target, host.address);
                    targets.push((target, number));
                }
                distinct(&mut targets);
            }
            Names::Alias(_) => {}
        }
        // Equal shares of 100, as CoreDNS has it.
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        let record = |(target, number)| RData::SRV(SRV::new(0, weight, number, target));
        self.found(targets.into_iter().map(record).collect(), additional)
    }

    /// The name of a zone itself.
    pub(super) fn apex(&self, name: &Name, asked: Asked) -> Answer {
        if asked.record_type == RecordType::SOA {
            return self.found(vec![self.soa_data()], Vec::new());
        }
        if asked.record_type != RecordType::NS {
            return Answer::NoData(self.soa(name));
        }
        let target = self.server_name();
        let glue = self.server_addresses().iter();
        let glue =
            glue.map(|address| Record::from_rdata(target.clone(), self.ttl, rdata(*address)));
        self.found(vec![self.ns_data()], glue.collect())
    }

    /// Those of `addresses` that are of the family asked for, in another order each time.
    pub(super) fn addresses(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
        asked: Asked,
    ) -> Answer {
        let wanted = addresses.filter(|address| match address {
            IpAddr::V4(_) => asked.record_type == RecordType::A,
            IpAddr::V6(_) => asked.record_type == RecordType::AAAA,
        });
        let addresses: Vec<IpAddr> = wanted.collect();
        let mut addresses: Vec<IpAddr> = some(&addresses, asked.most).copied().collect();
        // A host may stand there once for each set of its ports.
        distinct(&mut addresses);
        self.found(addresses.into_iter().map(rdata).collect(), Vec::new())
    }

    pub(super) fn found(&self, records: Vec<RData>, additional: Vec<Record>) -> Answer {
        if records.is_empty() { self.no_data() } else { Answer::Found { records, additional } }
    }

    pub(super) fn no_data(&self) -> Answer {
        Answer::NoData(self.soa(&self.domain))
    }

    pub(super) fn no_name(&self) -> Answer {
        Answer::NoName(self.soa(&self.domain))
    }

    pub(super) fn soa(&self, apex: &Name) -> Soa {
        Box::new(Record::from_rdata(apex.clone(), self.ttl, self.soa_data()))
    }

    /// Nobody transfers this zone, so the times for that are customary ones.
    pub(super) fn soa_data(&self) -> RData {
        let master =
            self.domain.prepend_label("hostmaster").unwrap_or_else(|_| self.domain.clone());
        let (refresh, retry, expire) = (7_200, 1_800, 86_400);
        RData::SOA(SOA::new(
            self.server_name(),
            master,
            self.serial,
            refresh,
            retry,
            expire,
            self.ttl,
        ))
    }

    pub(super) fn ns_data(&self) -> RData {
        RData::NS(NS(self.server_name()))
    }

    /// `ns.dns.<domain>`, as CoreDNS calls itself.
    pub(super) fn server_name(&self) -> Name {
        let below = |label: &str, name: &Name| name.prepend_label(label);
        let name = below("dns", &self.domain).and_then(|name| below("ns", &name));
        name.unwrap_or_else(|_| self.domain.clone())
    }
}

fn rdata(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// At most `most` elements, from a random one on, so that clients that take the first are spread.
fn some<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let start = if all.len() > 1 { fastrand::usize(..all.len()) } else { 0 };
    let (before, from) = all.split_at(start);
    from.iter().chain(before).take(most)
}

/// Removes what was there before, and keeps the order.
fn distinct<T: Clone + Eq + Hash>(all: &mut Vec<T>) {
    let mut seen = HashSet::new();
    all.retain(|it| seen.insert(it.clone()));
}
