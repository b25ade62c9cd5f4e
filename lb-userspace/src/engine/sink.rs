//! Where plans go: the datapath, or in the engine's own tests a table that records them.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use lb_common::abi::{Address, Port};

use crate::datapath::{Change, Datapath, Devices, Flows, Refused, SocketTables, Status};
use crate::host::ExemptCgroup;
use crate::sockets::{DeadPeer, Membership};

/// What the engine asks of a datapath.
pub(super) trait Sink: 'static {
    /// As [`Datapath::apply`].
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused>;
    /// As [`Datapath::has_adopted`].
    fn has_adopted(&self) -> bool;
    /// As [`Datapath::prune`].
    fn prune(&mut self);
    /// As [`Datapath::exempt`].
    fn exempt(&mut self, cgroups: Vec<ExemptCgroup>);
    /// As [`Datapath::service_cidrs`]. The engine's own tests have none.
    fn service_cidrs(&mut self, _: &[IpNet]) -> anyhow::Result<()> {
        Ok(())
    }
    /// As [`Datapath::devices`]. The engine's own tests have none.
    fn devices(&mut self, _: Devices) {}
    /// As [`Datapath::upkeep`].
    fn upkeep(&mut self) -> Option<Duration> {
        None
    }
    /// As [`Datapath::status`].
    fn status(&self) -> Status;

    /// As [`Datapath::take_sockets`]. The engine's own tests have no sockets.
    fn take_sockets(&mut self) -> Option<SocketTables> {
        None
    }
    /// As [`Datapath::take_flows`]. The engine's own tests have no flows.
    fn take_flows(&mut self) -> Option<Flows> {
        None
    }
    /// As [`Datapath::take_deaths`].
    fn take_deaths(&mut self) -> bool {
        false
    }
    /// As [`Datapath::unsettled`].
    fn unsettled(&self) -> BTreeSet<(Address, Port)> {
        BTreeSet::new()
    }
    /// As [`Datapath::membership`].
    fn membership(&self, _: &DeadPeer) -> Membership {
        Membership::NoService
    }
}

impl Sink for Datapath {
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused> {
        Self::apply(self, changes)
    }

    fn has_adopted(&self) -> bool {
        Self::has_adopted(self)
    }

    fn prune(&mut self) {
        Self::prune(self);
    }

    fn exempt(&mut self, cgroups: Vec<ExemptCgroup>) {
        Self::exempt(self, cgroups);
    }

    fn service_cidrs(&mut self, cidrs: &[IpNet]) -> anyhow::Result<()> {
        Self::service_cidrs(self, cidrs)
    }

    fn devices(&mut self, devices: Devices) {
        Self::devices(self, devices);
    }

    fn upkeep(&mut self) -> Option<Duration> {
        Self::upkeep(self)
    }

    fn status(&self) -> Status {
        Self::status(self)
    }

    fn take_sockets(&mut self) -> Option<SocketTables> {
        Self::take_sockets(self)
    }

    fn take_flows(&mut self) -> Option<Flows> {
        Self::take_flows(self)
    }

    fn take_deaths(&mut self) -> bool {
        Self::take_deaths(self)
    }

    fn unsettled(&self) -> BTreeSet<(Address, Port)> {
        Self::unsettled(self)
    }

    fn membership(&self, peer: &DeadPeer) -> Membership {
        Self::membership(self, peer)
    }
}
