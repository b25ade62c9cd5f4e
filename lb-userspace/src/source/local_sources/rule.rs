//! The rule, and what it looks at: routes and devices as the kernel shows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::source::netlink::{Netlink, NetlinkError};

/// Networks of nodes and pods have longer prefixes, in either family: 10.0.0.0/8, fd00::/8.
const WIDEST: u8 = 8;

/// Addresses that nobody has (RFC 5737, RFC 3849): their routes are those to the rest of the world.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What the rule looks at in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    kind: RouteType,
    prefix: u8,
    /// Whether the destination itself is the next hop.
    direct: bool,
    /// More than one if there are several ways.
    devices: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    ThisNode,
    /// It depends on the device with this index.
    Behind(u32),
    Elsewhere,
}

impl Route {
    pub(super) fn leads_to(&self) -> Place {
        match (self.kind, &self.devices[..]) {
            (RouteType::Local, _) => Place::ThisNode,
            (RouteType::Unicast, &[device]) if self.direct && !self.is_world() => {
                Place::Behind(device)
            }
            _ => Place::Elsewhere,
        }
    }

    fn is_world(&self) -> bool {
        self.prefix < WIDEST
    }
}

/// What the rule looks at in a device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    index: u32,
    /// Hardware has none.
    kind: Option<InfoKind>,
    ethernet: bool,
    /// The bridge whose port it is, or another master.
    master: Option<u32>,
}

impl Device {
    /// Whether a workload is at its other end.
    fn is_workloads(&self) -> bool {
        match &self.kind {
            Some(InfoKind::Veth | InfoKind::Netkit) => true,
            Some(InfoKind::Tun) => self.ethernet,
            _ => false,
        }
    }

    /// Whether workloads alone are behind it. `ports` are those of a bridge.
    fn leads_to_workloads(&self, ports: &[Self]) -> bool {
        if self.kind == Some(InfoKind::Bridge) {
            ports.iter().all(Self::is_workloads)
        } else {
            self.is_workloads()
        }
    }
}

/// Whether only workloads are behind the device with this index.
pub(super) fn leads_to_workloads(netlink: &mut Netlink, index: u32) -> Result<bool, NetlinkError> {
    let Some(device) = device(netlink, index)? else { return Ok(false) };
    let ports = match device.kind {
        Some(InfoKind::Bridge) => ports(netlink, index)?,
        _ => Vec::new(),
    };
    if !device.leads_to_workloads(&ports) {
        return Ok(false);
    }
    for world in WORLD {
        let way_out = route(netlink, world, 0)?;
        if way_out.is_some_and(|route| route.is_world() && route.devices.contains(&index)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The route by which the node would answer; with `scope`, by that device only. `None` if there is
/// none.
pub(super) fn route(
    netlink: &mut Netlink,
    to: IpAddr,
    scope: u32,
) -> Result<Option<Route>, NetlinkError> {
    let mut question = RouteMessage::default();
    (question.header.address_family, question.header.destination_prefix_length) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    // As the route was entered, with its prefix and all its ways.
    question.header.flags = RouteFlags::FibMatch;
    question.attributes.push(RouteAttribute::Destination(to.into()));
    if scope != 0 {
        question.attributes.push(RouteAttribute::Oif(scope));
    }
    match netlink.get(&RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(message)) => Ok(Some(Route::from(&message))),
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

fn device(netlink: &mut Netlink, index: u32) -> Result<Option<Device>, NetlinkError> {
    let mut question = without_statistics();
    question.header.index = index;
    match netlink.get(&RouteNetlinkMessage::GetLink(question)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Device::from(&message))),
        Ok(other) => Err(NetlinkError::Answer(format!("unexpected message {other:?}"))),
        Err(NetlinkError::Refused(_)) => Ok(None),
        Err(error @ (NetlinkError::Socket(_) | NetlinkError::Answer(_))) => Err(error),
    }
}

fn ports(netlink: &mut Netlink, bridge: u32) -> Result<Vec<Device>, NetlinkError> {
    let mut question = without_statistics();
    question.attributes.push(LinkAttribute::Controller(bridge));
    let mut ports = Vec::new();
    for object in netlink.list(&RouteNetlinkMessage::GetLink(question))? {
        if let RouteNetlinkMessage::NewLink(message) = &object {
            ports.push(Device::from(message));
        }
    }
    // Whether or not the kernel has selected them.
    ports.retain(|port| port.master == Some(bridge));
    Ok(ports)
}

fn without_statistics() -> LinkMessage {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    question
}

impl From<&LinkMessage> for Device {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; two variants are ours")]
    fn from(message: &LinkMessage) -> Self {
        let header = &message.header;
        let ethernet = header.link_layer_type == LinkLayerType::Ether;
        let mut device = Self { index: header.index, kind: None, ethernet, master: None };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Controller(master) => device.master = Some(*master),
                LinkAttribute::LinkInfo(infos) => {
                    device.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_leads_to_this_node_behind_a_device_or_elsewhere() {
        let route = |kind, prefix, direct, devices: &[u32]| Route {
            kind,
            prefix,
            direct,
            devices: devices.to_vec(),
        };
        let unicast = RouteType::Unicast;
        for (description, route, expected) in [
            ("an address of ours", route(RouteType::Local, 32, true, &[1]), Place::ThisNode),
            ("all of loopback", route(RouteType::Local, 8, true, &[1]), Place::ThisNode),
            ("a pod's own route", route(unicast, 32, true, &[7]), Place::Behind(7)),
            ("a network on the link", route(unicast, 24, true, &[7]), Place::Behind(7)),
            ("the widest network", route(unicast, 8, true, &[7]), Place::Behind(7)),
            ("the world on the link", route(unicast, 0, true, &[7]), Place::Elsewhere),
            ("half of the world", route(unicast, 1, true, &[7]), Place::Elsewhere),
            ("all global IPv6", route(unicast, 3, true, &[7]), Place::Elsewhere),
            ("a gateway", route(unicast, 24, false, &[7]), Place::Elsewhere),
            ("several ways", route(unicast, 24, true, &[7, 8]), Place::Elsewhere),
            ("a next hop that is not shown", route(unicast, 24, true, &[]), Place::Elsewhere),
            ("a broadcast address", route(RouteType::Broadcast, 32, true, &[7]), Place::Elsewhere),
            ("multicast", route(RouteType::Multicast, 8, true, &[7]), Place::Elsewhere),
            ("a black hole", route(RouteType::BlackHole, 24, true, &[]), Place::Elsewhere),
        ] {
            assert_eq!(route.leads_to(), expected, "{description}");
        }
    }

    #[test]
    fn a_device_leads_to_workloads_by_its_kind_and_a_bridge_by_its_ports() {
        let of =
            |kind: Option<InfoKind>, ethernet| Device { index: 7, kind, ethernet, master: None };
        let hardware = || of(None, true);
        let veth = || of(Some(InfoKind::Veth), true);
        let tap = || of(Some(InfoKind::Tun), true);
        let bridge = || of(Some(InfoKind::Bridge), true);
        let netkit = of(Some(InfoKind::Netkit), false);
        let tun = of(Some(InfoKind::Tun), false);
        let cases = [
            ("veth", veth(), vec![], true),
            ("netkit", netkit, vec![], true),
            ("tap", tap(), vec![], true),
            ("tun of a VPN", tun, vec![], false),
            ("hardware", hardware(), vec![], false),
            ("bridge without ports", bridge(), vec![], true),
            ("bridge of workloads", bridge(), vec![veth(), tap()], true),
            ("bridge with hardware", bridge(), vec![veth(), hardware()], false),
        ];
        for (description, device, ports, expected) in cases {
            assert_eq!(device.leads_to_workloads(&ports), expected, "{description}");
        }
        for kind in [
            InfoKind::Vlan,
            InfoKind::Bond,
            InfoKind::Team,
            InfoKind::MacVlan,
            InfoKind::MacVtap,
            InfoKind::IpVlan,
            InfoKind::Vxlan,
            InfoKind::Geneve,
            InfoKind::IpIp,
            InfoKind::GreTap,
            InfoKind::Wireguard,
            InfoKind::Dummy,
            InfoKind::Vrf,
            InfoKind::Other("openvswitch".to_owned()),
        ] {
            let elsewhere = of(Some(kind.clone()), true);
            assert!(!elsewhere.leads_to_workloads(&[]), "{kind}");
            assert!(!bridge().leads_to_workloads(&[veth(), elsewhere]), "bridge with {kind}");
        }
    }
}
