//! The addresses of this node, by rtnetlink(7), in the network namespace that the agent runs in.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::watch;

use super::announcements::{ADDRESSES, Announcements};
use crate::engine::Engine;
use crate::host::Netlink;

/// The node's addresses and their changes.
#[derive(Debug)]
pub struct Addresses {
    announcements: Announcements,
}

impl Addresses {
    /// Changes from now on will be noticed.
    pub fn subscribe() -> Result<Self> {
        let announcements =
            Announcements::subscribe(ADDRESSES).context("following this node's addresses")?;
        Ok(Self { announcements })
    }

    /// The addresses that are in use now.
    pub fn list(&self) -> Result<BTreeSet<IpAddr>> {
        let mut addresses = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let listed = list(family).context("listing this node's addresses")?;
            addresses.extend(listed.iter().filter_map(in_use));
        }
        Ok(addresses)
    }

    /// Tells the engine of changes until `stop` becomes true.
    pub async fn follow(self, engine: Engine, mut stop: watch::Receiver<bool>) -> Result<()> {
        loop {
            tokio::select! {
                changed = self.changed() => changed.context("following this node's addresses")?,
                // An error means that the sender is gone, which is a stop as well.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
            engine.node_addresses(self.list()?).await;
        }
    }

    /// Waits for an announcement, and takes in all that there are.
    pub async fn changed(&self) -> io::Result<()> {
        self.announcements.next().await
    }
}

/// The addresses of one family as the kernel shows them.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; one variant is ours")]
fn list(family: AddressFamily) -> Result<Vec<AddressMessage>> {
    let mut question = AddressMessage::default();
    question.header.family = family;
    let listed = Netlink::open()?.list(&RouteNetlinkMessage::GetAddress(question))?;
    let addresses = listed.into_iter().map(|object| match object {
        RouteNetlinkMessage::NewAddress(address) => Ok(address),
        other => bail!("unexpected answer {other:?}"),
    });
    addresses.collect()
}

/// The address, if it can be used. One whose uniqueness is being checked, or that turned out to be
/// another host's, cannot; the end of the check is announced.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; two variants are ours")]
fn in_use(message: &AddressMessage) -> Option<IpAddr> {
    let flags = message.header.flags;
    if flags.contains(AddressHeaderFlags::Tentative)
        && !flags.contains(AddressHeaderFlags::Optimistic)
    {
        return None;
    }
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    // On a link between two hosts, the other attribute is the other host's address.
    local.or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: AddressHeaderFlags, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.flags = flags;
        message.attributes = attributes;
        message
    }

    #[test]
    fn an_address_counts_while_it_can_be_used() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (ours, theirs) = (ip("fd00::1"), ip("fd00::2"));
        let (permanent, tentative) = (AddressHeaderFlags::Permanent, AddressHeaderFlags::Tentative);
        for (description, flags, counts) in [
            ("in use", permanent, true),
            ("its uniqueness is being checked", permanent | tentative, false),
            ("another host's", tentative | AddressHeaderFlags::Dadfailed, false),
            ("in use during the check", tentative | AddressHeaderFlags::Optimistic, true),
            ("no more for new connections of ours", AddressHeaderFlags::Deprecated, true),
        ] {
            let found = in_use(&message(flags, vec![AddressAttribute::Address(ours)]));
            assert_eq!(found, counts.then_some(ours), "{description}");
        }
        let link = vec![AddressAttribute::Address(theirs), AddressAttribute::Local(ours)];
        assert_eq!(in_use(&message(permanent, link)), Some(ours), "not the other host's");
    }

    #[tokio::test]
    async fn the_kernel_lists_this_machines_addresses() {
        let listed = Addresses::subscribe().expect("a socket").list().expect("a listing");
        let loopback = [IpAddr::from([127, 0, 0, 1])];
        assert!(loopback.iter().all(|address| listed.contains(address)), "{listed:?}");
    }
}
