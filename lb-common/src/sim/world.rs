//! A node as the packet path's tests know it: who there is, and tables in which a service is set up in one line.
//!
//! ```text
//! client ── eth0 [ node ] pods ── local pods
//! remote pods ─┘
//! ```

use alloc::collections::BTreeMap;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Tables;
use super::flows::Arrival;
use crate::abi::{
    Address, Backend, Cidr, FrontendKey, FrontendKind, Life, Policy, Port, Run, Service,
};
use crate::path::packet::Route;

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Whether they are IPv4.
    pub v4: bool,
}

impl Who {
    /// Elsewhere.
    pub fn client(self) -> Address {
        self.address([192, 0, 2, 7], 0x7)
    }

    /// A router between the client and the node.
    pub fn router(self) -> Address {
        self.address([192, 0, 2, 254], 0xfe)
    }

    /// The node itself, on the device by which clients and remote pods are reached.
    pub fn node(self) -> Address {
        self.address([192, 0, 2, 1], 0x1)
    }

    /// A pod on this node.
    pub fn local_pod(self, n: u8) -> Address {
        self.address([10, 244, 1, n], 0x1_0000 | u32::from(n))
    }

    /// A pod on another node.
    pub fn remote_pod(self, n: u8) -> Address {
        self.address([10, 244, 2, n], 0x2_0000 | u32::from(n))
    }

    /// A ClusterIP.
    pub fn cluster_ip(self, n: u8) -> Address {
        self.address([10, 96, 0, n], 0xffff_0000 | u32::from(n))
    }

    /// An external address, such as a load balancer's.
    pub fn external(self, n: u8) -> Address {
        self.address([203, 0, 113, n], 0x3_0000 | u32::from(n))
    }

    /// Range of the ClusterIPs.
    pub fn service_cidr(self) -> Cidr {
        Cidr::new(self.cluster_ip(0), 112)
    }

    fn address(self, v4: [u8; 4], v6: u32) -> Address {
        match self.v4 {
            true => IpAddr::V4(Ipv4Addr::from(v4)).into(),
            false => {
                let [a, b] = [(v6 >> 16) as u16, (v6 & 0xffff) as u16];
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, a, b)).into()
            }
        }
    }
}

/// Tables and what surrounds them.
#[derive(Clone, Debug)]
pub struct World {
    /// Addresses.
    pub who: Who,
    /// The tables.
    pub tables: Tables,
    /// How packets come.
    pub arrival: Arrival,
}

/// The indexes of `eth0` and `pods`.
pub const DEVICES: [u32; 2] = [1000, 1001];

/// The only port by which the node stands in for clients: so chance has no part in it.
pub const STAND_IN: u16 = 50_000;

impl World {
    /// No services yet.
    pub fn new(v4: bool) -> Self {
        let who = Who { v4 };
        let mut tables = Tables::default();
        tables.node.service_cidrs[0] = who.service_cidr();
        tables.node.snat_first = STAND_IN.into();
        tables.node.snat_count = 1;
        let mut routes = BTreeMap::new();
        for n in 0..=u8::MAX {
            let [eth0, pods] = DEVICES;
            let source = who.node();
            routes.insert(who.local_pod(n), Route { returns: false, device: pods, source });
            routes.insert(who.remote_pod(n), Route { returns: true, device: eth0, source });
        }
        let attached = DEVICES.into();
        let arrival = Arrival { inside: false, routes, attached, is_partial: false };
        Self { who, tables, arrival }
    }

    /// Service `index` behind one frontend, with these backends on port 8080, ids from `16 * index` on. The address
    /// itself is known as that of its kind.
    #[must_use]
    pub fn service(
        mut self,
        index: u32,
        kind: FrontendKind,
        (address, port, protocol): (Address, u16, u8),
        policy: Policy,
        backends: &[Address],
    ) -> Self {
        let first = 16 * index;
        let (mut cluster, mut local) = (0, 0);
        for (n, address) in (0_u32..).zip(backends) {
            let here = self.arrival.routes.get(address).is_some_and(|route| !route.returns);
            let life = Life { generation: 7, cluster: true, local: here, present: true };
            let backend = Backend {
                address: *address,
                port: Port::new(8080),
                here: here.into(),
                service: index,
                life: life.to_word(),
                ..Backend::NONE
            };
            self.tables.backends.insert(first + n, backend);
            self.tables.runs.insert(first + cluster, first + n);
            cluster += 1;
            if here {
                self.tables.runs.insert(1024 + first + local, first + n);
                local += 1;
            }
        }
        let run = |first, count| Run { first, count, generation: 1 }.to_word();
        let service = Service {
            cluster: run(first, cluster),
            local: run(1024 + first, local),
            policy: policy.to_word(),
        };
        self.tables.services.insert(index, service);
        self.tables.put(FrontendKey::new(address, Port::new(port), protocol), kind, index);
        match kind {
            FrontendKind::ClusterIp | FrontendKind::Address | FrontendKind::Foreign => {
                self.tables.put(FrontendKey::of_address(address), FrontendKind::Address, 0);
            }
            FrontendKind::External | FrontendKind::LoadBalancer | FrontendKind::ExternalAddress => {
                self.tables.put(FrontendKey::of_address(address), FrontendKind::ExternalAddress, 0);
            }
            FrontendKind::NodePort => {}
        }
        self
    }

    /// What the random numbers must be, in turn, for a choice of this slot among `count`.
    pub fn script(&self, slot: u32, count: u32) {
        let number = (u64::from(slot) << 32) / u64::from(count.max(1)) + 1;
        let mut script = self.tables.script.borrow_mut();
        script.clear();
        script.push_back(u32::try_from(number).unwrap_or(u32::MAX));
    }
}
