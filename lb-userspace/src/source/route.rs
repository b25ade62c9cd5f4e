//! Routes as the kernel shows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::host::{Netlink, NetlinkError};

/// Networks of nodes and pods have longer prefixes, in either family: 10.0.0.0/8, fd00::/8.
const WIDEST: u8 = 8;

/// Addresses that nobody has (RFC 5737, RFC 3849): their routes are those to the rest of the world.
pub(super) const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What the rules look at in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) kind: RouteType,
    pub(super) prefix: u8,
    /// Whether the destination itself is the next hop.
    pub(super) direct: bool,
    /// More than one if there are several ways.
    pub(super) devices: Vec<u32>,
}

impl Route {
    /// Whether it leads to the rest of the world.
    pub(super) fn is_world(&self) -> bool {
        self.prefix < WIDEST
    }
}

/// The route by which the node would answer; with `scope`, by that device only. `None` if there is
/// none.
pub(super) fn get(
    netlink: &mut Netlink,
    to: IpAddr,
    scope: u32,
) -> Result<Option<Route>, NetlinkError> {
    let mut question = question(to);
    // As the route was entered, with its prefix and all its ways.
    question.header.flags = RouteFlags::FibMatch;
    if scope != 0 {
        question.attributes.push(RouteAttribute::Oif(scope));
    }
    Ok(ask(netlink, question)?.as_ref().map(Route::from))
}

/// The address that the node's packets to `to` would come from, if there is a route.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums; a few variants are ours")]
pub(super) fn source(netlink: &mut Netlink, to: IpAddr) -> Result<Option<IpAddr>, NetlinkError> {
    let Some(route) = ask(netlink, question(to))? else { return Ok(None) };
    if route.header.kind != RouteType::Unicast {
        return Ok(None);
    }
    Ok(route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    }))
}

/// The routes of the main table to other hosts, of both families, without those of a link's own
/// addresses (fe80::/64).
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Route>, NetlinkError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        for object in netlink.list(&RouteNetlinkMessage::GetRoute(question))? {
            if let RouteNetlinkMessage::NewRoute(message) = &object
                && message.header.table == RouteHeader::RT_TABLE_MAIN
                && message.header.kind == RouteType::Unicast
                && !is_link_local(message)
            {
                routes.push(Route::from(message));
            }
        }
    }
    Ok(routes)
}

fn is_link_local(message: &RouteMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, RouteAttribute::Destination(RouteAddress::Inet6(to))
            if to.is_unicast_link_local())
    })
}

fn question(to: IpAddr) -> RouteMessage {
    let mut question = RouteMessage::default();
    (question.header.address_family, question.header.destination_prefix_length) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.attributes.push(RouteAttribute::Destination(to.into()));
    question
}

fn ask(
    netlink: &mut Netlink,
    question: RouteMessage,
) -> Result<Option<RouteMessage>, NetlinkError> {
    match netlink.get(&RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(message)) => Ok(Some(message)),
        Ok(other) => Err(NetlinkError::Answer(format!("unexpected message {other:?}"))),
        Err(NetlinkError::Refused(_)) => Ok(None),
        Err(error @ (NetlinkError::Socket(_) | NetlinkError::Answer(_))) => Err(error),
    }
}

impl From<&RouteMessage> for Route {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; a few variants are ours")]
    fn from(message: &RouteMessage) -> Self {
        let (kind, prefix) = (message.header.kind, message.header.destination_prefix_length);
        let mut route = Self { kind, prefix, direct: true, devices: Vec::new() };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(device) => route.devices.push(*device),
                RouteAttribute::MultiPath(hops) => {
                    route.devices.extend(hops.iter().map(|hop| hop.interface_index));
                }
                RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::EncapType(_)
                | RouteAttribute::NewDestination(_) => route.direct = false,
                _ => {}
            }
        }
        route
    }
}
