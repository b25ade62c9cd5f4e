//! All pools of the agent as one, with an undo log.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{AddressPool, BandedPool, RangeError, Refusal, band_offset, family_of, name};
use crate::object::Key;
use crate::plan::Family;

/// The `--service-node-port-range` of Kubernetes, both ends included.
pub const NODE_PORTS: (u16, u16) = (30000, 32767);

/// One thing that a pool hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A ClusterIP.
    Address(IpAddr),
    /// A NodePort or a health check's NodePort.
    Port(u16),
}

/// Why an allocation failed, in Kubernetes' words (`ipallocator`, `portallocator`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The address has an owner.
    #[error("provided IP is already allocated (by {}/{})", .0.namespace, .0.name)]
    AddressTaken(Key),
    /// Not an address of the service CIDR that a Service can have.
    #[error("provided IP is not in the valid range. The range of valid IPs is {0}")]
    AddressOutOfRange(IpNet),
    /// No range of this family.
    #[error("{0} is not configured on this cluster")]
    NoRange(&'static str),
    /// Every address is taken.
    #[error("range is full: {0} has no free address left; give the agent a larger --service-cidr")]
    AddressesFull(IpNet),
    /// The port has an owner.
    #[error("provided port is already allocated (by {}/{})", .0.namespace, .0.name)]
    PortTaken(Key),
    /// Not a NodePort.
    #[error("provided port is not in the valid range. The range of valid ports is {}-{}", NODE_PORTS.0, NODE_PORTS.1)]
    PortOutOfRange,
    /// Every port is taken.
    #[error("range is full: no NodePort of {}-{} is free", NODE_PORTS.0, NODE_PORTS.1)]
    PortsFull,
}

/// A point in the history of [`Pools`] to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "pass it to `undo`"]
pub struct Mark(usize);

#[derive(Clone, Debug)]
enum Change {
    Taken(Resource, Key),
    GivenBack(Resource, Key),
}

/// All pools of the agent, and what was done to them since the last [`Pools::commit`], so that an
/// admission that fails, a dry run or a store that cannot be written leaves no trace.
#[derive(Clone, Debug)]
pub struct Pools {
    v4: Option<AddressPool>,
    v6: Option<AddressPool>,
    ports: BandedPool,
    default_family: Family,
    changes: Vec<Change>,
}

impl Pools {
    /// The pools of `--service-cidr`; the first range's family is the default one.
    pub fn new(ranges: &[IpNet]) -> Result<Self, RangeError> {
        Self::with_random(ranges, fastrand::Rng::new())
    }

    /// As [`Self::new`], with choices that can be repeated.
    pub fn with_random(ranges: &[IpNet], mut random: fastrand::Rng) -> Result<Self, RangeError> {
        let first = ranges.first().ok_or(RangeError::None)?;
        let (mut v4, mut v6) = (None, None);
        for range in ranges {
            let slot = match range {
                IpNet::V4(_) => &mut v4,
                IpNet::V6(_) => &mut v6,
            };
            let pool = AddressPool::new(*range, random.fork())?;
            if let Some(other) = slot.replace(pool) {
                return Err(RangeError::SameFamily(other.range(), *range));
            }
        }
        let default_family = family_of(first.addr());
        Ok(Self { v4, v6, ..Self::without_addresses(default_family, random) })
    }

    /// Pools that nothing is allocated from: the Kubernetes API does that.
    pub fn unused() -> Self {
        Self::without_addresses(Family::V4, fastrand::Rng::new())
    }

    fn without_addresses(default_family: Family, random: fastrand::Rng) -> Self {
        let size = u128::from(NODE_PORTS.1 - NODE_PORTS.0) + 1;
        let ports = BandedPool::new(size, band_offset(size, 32, 128), random);
        Self { v4: None, v6: None, ports, default_family, changes: Vec::new() }
    }

    /// The family of a Service that does not ask for one.
    pub const fn default_family(&self) -> Family {
        self.default_family
    }

    /// The ClusterIPs of `family`, if it has a range.
    pub const fn addresses(&self, family: Family) -> Option<&AddressPool> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// The NodePorts, numbered from [`NODE_PORTS`]'s first.
    pub const fn ports(&self) -> &BandedPool {
        &self.ports
    }

    /// The owner of an address or port.
    pub fn owner(&self, resource: Resource) -> Option<&Key> {
        match resource {
            Resource::Address(address) => {
                let addresses = self.addresses(family_of(address))?;
                addresses.pool.owner(addresses.number(address)?)
            }
            Resource::Port(port) => self.ports.owner(port_number(port)?),
        }
    }

    /// Hands out `resource` to `owner`.
    pub fn take(&mut self, resource: Resource, owner: &Key) -> Result<(), AllocateError> {
        match resource {
            Resource::Address(address) => self.take_address(address, owner)?,
            Resource::Port(port) => self.take_port(port, owner)?,
        }
        self.changes.push(Change::Taken(resource, owner.clone()));
        Ok(())
    }

    /// Hands out a free ClusterIP of `family`.
    pub fn take_any_address(
        &mut self,
        family: Family,
        owner: &Key,
    ) -> Result<IpAddr, AllocateError> {
        let addresses = self.addresses_mut(family).ok_or(AllocateError::NoRange(name(family)))?;
        let range = addresses.range();
        let full = |_| AllocateError::AddressesFull(range);
        let number = addresses.pool.take_any(owner).map_err(full)?;
        let address = addresses.address(number);
        self.changes.push(Change::Taken(Resource::Address(address), owner.clone()));
        Ok(address)
    }

    /// Hands out a free NodePort.
    pub fn take_any_port(&mut self, owner: &Key) -> Result<u16, AllocateError> {
        let number = self.ports.take_any(owner).map_err(|_| AllocateError::PortsFull)?;
        let port = NODE_PORTS.0 + u16::try_from(number).expect("the range has u16 ports");
        self.changes.push(Change::Taken(Resource::Port(port), owner.clone()));
        Ok(port)
    }

    /// Takes `resource` back from `owner`; nothing happens if it is not that owner's, as with an
    /// address that was allocated under another `--service-cidr`.
    pub fn give_back(&mut self, resource: Resource, owner: &Key) {
        if self.remove(resource, owner) {
            self.changes.push(Change::GivenBack(resource, owner.clone()));
        }
    }

    /// The present state, to come back to with [`Self::undo`].
    pub fn mark(&self) -> Mark {
        Mark(self.changes.len())
    }

    /// Undoes everything since `mark`, the last change first.
    pub fn undo(&mut self, mark: Mark) {
        while self.changes.len() > mark.0 {
            match self.changes.pop() {
                Some(Change::Taken(resource, owner)) => {
                    self.remove(resource, &owner);
                }
                Some(Change::GivenBack(resource, owner)) => {
                    let restored = match resource {
                        Resource::Address(address) => self.take_address(address, &owner),
                        Resource::Port(port) => self.take_port(port, &owner),
                    };
                    debug_assert_eq!(restored, Ok(()), "undone in order, so it is free again");
                }
                None => break,
            }
        }
    }

    /// Makes everything so far final. Marks taken before are void.
    pub fn commit(&mut self) {
        self.changes.clear();
    }

    fn take_address(&mut self, address: IpAddr, owner: &Key) -> Result<(), AllocateError> {
        let family = family_of(address);
        let addresses = self.addresses_mut(family).ok_or(AllocateError::NoRange(name(family)))?;
        let range = addresses.range();
        let out = || AllocateError::AddressOutOfRange(range);
        let number = addresses.number(address).ok_or_else(out)?;
        addresses.pool.take(number, owner).map_err(|refusal| match refusal {
            Refusal::Taken(other) => AllocateError::AddressTaken(other),
            Refusal::OutOfRange | Refusal::Full => out(),
        })
    }

    fn take_port(&mut self, port: u16, owner: &Key) -> Result<(), AllocateError> {
        let number = port_number(port).ok_or(AllocateError::PortOutOfRange)?;
        self.ports.take(number, owner).map_err(|refusal| match refusal {
            Refusal::Taken(other) => AllocateError::PortTaken(other),
            Refusal::OutOfRange | Refusal::Full => AllocateError::PortOutOfRange,
        })
    }

    fn remove(&mut self, resource: Resource, owner: &Key) -> bool {
        match resource {
            Resource::Address(address) => {
                self.addresses_mut(family_of(address)).is_some_and(|addresses| {
                    addresses
                        .number(address)
                        .is_some_and(|number| addresses.pool.give_back(number, owner))
                })
            }
            Resource::Port(port) => {
                port_number(port).is_some_and(|number| self.ports.give_back(number, owner))
            }
        }
    }

    const fn addresses_mut(&mut self, family: Family) -> Option<&mut AddressPool> {
        match family {
            Family::V4 => self.v4.as_mut(),
            Family::V6 => self.v6.as_mut(),
        }
    }
}

fn port_number(port: u16) -> Option<u128> {
    port.checked_sub(NODE_PORTS.0).map(u128::from)
}
