//! Tables in which services can be set up in one line each.

use std::net::IpAddr;

use lb_common::abi::{
    Address, Backend, Cidr, FrontendKey, FrontendKind, Life, Policy, Port, Run, Service, protocol,
};
use lb_common::path::{Action, Verdict};
use lb_common::sim::{Caller, Tables};

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

pub(crate) fn tcp(text: &str, port: u16) -> FrontendKey {
    FrontendKey::new(address(text), Port::new(port), protocol::TCP)
}

pub(crate) fn udp(text: &str, port: u16) -> FrontendKey {
    FrontendKey::new(address(text), Port::new(port), protocol::UDP)
}

/// A caller in a network namespace that is not the node's.
pub(crate) const POD: Caller = Caller { netns: 2, exempt: false, own: false };

/// Tables, and what is done to them.
#[derive(Default)]
pub(crate) struct Fixture(pub(crate) Tables);

impl Fixture {
    pub(crate) fn new() -> Self {
        let mut fixture = Self::default();
        fixture.0.node.service_cidrs[0] = Cidr::new(address("10.96.0.0"), 96 + 12);
        fixture
    }

    /// Service `index` with one frontend and these backends, ids from `10 * index` on.
    pub(crate) fn service(
        mut self,
        index: u32,
        frontend: FrontendKey,
        backends: &[(&str, u16)],
    ) -> Self {
        let first = index * 100;
        for (n, (ip, port)) in (0..).zip(backends) {
            let id = index * 10 + n;
            let life = Life { generation: 1, cluster: true, local: true, present: true };
            let backend = Backend {
                address: address(ip),
                port: Port::new(*port),
                service: index,
                life: life.to_word(),
                ..Backend::NONE
            };
            self.0.backends.insert(id, backend);
            self.0.runs.insert(first + n, id);
        }
        let count = u32::try_from(backends.len()).expect("few");
        self.set_run(index, Run { first, count, generation: 1 });
        self.0.put(frontend, FrontendKind::ClusterIp, index);
        self.0.put(FrontendKey::of_address(frontend.address), FrontendKind::Address, 0);
        self
    }

    /// How a service treats its clients.
    pub(crate) fn set_policy(&mut self, index: u32, policy: Policy) {
        self.0.services.get_mut(&index).expect("the fixture has it").policy = policy.to_word();
    }

    pub(crate) fn set_run(&mut self, index: u32, run: Run) {
        let word = run.to_word();
        let policy = self.0.services.get(&index).map_or(0, |service| service.policy);
        self.0.services.insert(index, Service { cluster: word, local: word, policy });
    }

    pub(crate) fn set_selected(&mut self, id: u32, selected: bool) {
        let backend = self.0.backends.get_mut(&id).expect("the fixture has it");
        backend.life = Life { cluster: selected, local: selected, ..backend.life() }.to_word();
    }
}

pub(crate) fn target(verdict: &Verdict) -> (IpAddr, u16) {
    assert_eq!(verdict.reason.action(), Action::Rewrite, "{verdict:?}");
    (verdict.address.into(), verdict.port.number())
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
