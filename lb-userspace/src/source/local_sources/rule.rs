//! The rule, and what it asks the kernel.

use netlink_packet_route::route::RouteType;

use crate::host::{Netlink, NetlinkError};
use crate::source::device;
use crate::source::route::{self, Route, WORLD};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    ThisNode,
    /// It depends on the device with this index.
    Behind(u32),
    Elsewhere,
}

/// Where a route leads.
pub(super) fn leads_to(route: &Route) -> Place {
    match (route.kind, &route.devices[..]) {
        (RouteType::Local, _) => Place::ThisNode,
        (RouteType::Unicast, &[device]) if route.direct && !route.is_world() => {
            Place::Behind(device)
        }
        _ => Place::Elsewhere,
    }
}

/// Whether only workloads are behind the device with this index.
pub(super) fn leads_to_workloads(netlink: &mut Netlink, index: u32) -> Result<bool, NetlinkError> {
    let Some(device) = device::get(netlink, index)? else { return Ok(false) };
    let ports = if device.is_bridge() { device::ports(netlink, index)? } else { Vec::new() };
    if !device.leads_to_workloads(&ports) {
        return Ok(false);
    }
    for world in WORLD {
        let way_out = route::get(netlink, world, 0)?;
        if way_out.is_some_and(|route| route.is_world() && route.devices.contains(&index)) {
            return Ok(false);
        }
    }
    Ok(true)
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
            assert_eq!(leads_to(&route), expected, "{description}");
        }
    }
}
