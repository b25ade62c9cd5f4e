//! Which devices get the packet programs, and of which others a person should know.
//!
//! Packets for a Service come from outside by the device that leads to the rest of the world, and from
//! workloads whose sockets the node does not see (virtual machines, sandboxes) by a bridge or a tap.
//! Who wants others names them.

use std::collections::BTreeSet;

use netlink_packet_route::link::{InfoKind, LinkFlags, LinkLayerType};

use super::pattern::Pattern;
use crate::datapath;
use crate::datapath::Framing;
use crate::source::device::Device;
use crate::source::route::Route;

/// What a listing shows.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) devices: Vec<Device>,
    /// Of the main table.
    pub(super) routes: Vec<Route>,
}

impl Seen {
    /// The devices that get the programs: those of these names, or without any, those with a default
    /// route, bridges and taps.
    pub(super) fn select(&self, patterns: &[Pattern]) -> Vec<datapath::Device> {
        let ways_out = self.ways_out();
        let chosen = |device: &&Device| {
            if patterns.is_empty() {
                ways_out.contains(&device.index) || device.is_bridge() || device.is_tap()
            } else {
                patterns.iter().any(|pattern| pattern.matches(&device.name))
            }
        };
        self.candidates()
            .filter(chosen)
            .map(|device| datapath::Device {
                index: device.index,
                name: device.name.clone(),
                framing: framing(device.layer),
                inside: !ways_out.contains(&device.index)
                    && device.leads_to_workloads(self.ports(device.index)),
            })
            .collect()
    }

    /// The names of the devices by which others reach the node, or through it, unseen: those that are
    /// up and that a route leads to. A workload's own device is none of them, as its sockets are
    /// translated, unless the node itself is a workload; nor is a port of a bridge that is seen, or a
    /// device behind which nobody is.
    pub(super) fn unseen(&self, selected: &[datapath::Device]) -> Vec<String> {
        let selected: BTreeSet<u32> = selected.iter().map(|device| device.index).collect();
        let ways_out = self.ways_out();
        let routed: BTreeSet<u32> =
            self.routes.iter().flat_map(|route| &route.devices).copied().collect();
        let is_unseen = |device: &&Device| {
            device.flags.contains(LinkFlags::Up)
                && routed.contains(&device.index)
                && !selected.contains(&device.index)
                && !device.master.is_some_and(|master| selected.contains(&master))
                && (!device.is_workloads() || ways_out.contains(&device.index))
                && !matches!(device.kind, Some(InfoKind::Dummy | InfoKind::Ifb | InfoKind::Vrf))
        };
        self.candidates().filter(is_unseen).map(|device| device.name.clone()).collect()
    }

    fn candidates(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| !device.flags.contains(LinkFlags::Loopback))
    }

    /// The indexes of the devices that default routes lead to.
    fn ways_out(&self) -> BTreeSet<u32> {
        let routes = self.routes.iter().filter(|route| route.is_world());
        routes.flat_map(|route| &route.devices).copied().collect()
    }

    fn ports(&self, bridge: u32) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(move |device| device.master == Some(bridge))
    }
}

/// What the device's packets begin with.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; a few variants are ours")]
fn framing(layer: LinkLayerType) -> Framing {
    match layer {
        LinkLayerType::Ether => Framing::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre => Framing::Bare,
        other => Framing::Other(u16::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteType;

    use super::*;
    use crate::source::device::tests::of;

    fn ethernet(index: u32, kind: Option<InfoKind>) -> Device {
        of(index, kind, LinkLayerType::Ether)
    }

    fn port(master: u32, device: Device) -> Device {
        Device { master: Some(master), ..device }
    }

    fn loopback() -> Device {
        let lo = of(1, None, LinkLayerType::Loopback);
        Device { name: "lo".to_owned(), flags: LinkFlags::Up | LinkFlags::Loopback, ..lo }
    }

    fn route(prefix: u8, devices: &[u32]) -> Route {
        Route { kind: RouteType::Unicast, prefix, direct: true, devices: devices.to_vec() }
    }

    /// `device2 inside` for each one selected, `(device3)` for each one unseen.
    fn shown(devices: Vec<Device>, routes: Vec<Route>, patterns: &[&str]) -> String {
        let patterns: Vec<Pattern> =
            patterns.iter().map(|word| word.parse().expect("a pattern")).collect();
        let seen = Seen { devices, routes };
        let selected = seen.select(&patterns);
        let unseen = seen.unseen(&selected).into_iter().map(|name| format!("({name})"));
        let selected = selected
            .into_iter()
            .map(|device| format!("{}{}", device.name, if device.inside { " inside" } else { "" }));
        selected.chain(unseen).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn by_default_ways_out_bridges_and_taps_are_chosen() {
        let (tun, bridge) = (|| Some(InfoKind::Tun), || Some(InfoKind::Bridge));
        let veth = || Some(InfoKind::Veth);
        let cases = [
            ("nothing but loopback", vec![loopback()], vec![route(0, &[1])], ""),
            ("a default route", vec![ethernet(2, None)], vec![route(0, &[2])], "device2"),
            ("half of the world", vec![ethernet(2, None)], vec![route(1, &[2])], "device2"),
            (
                "two ways of one route, and another",
                vec![ethernet(2, None), ethernet(3, None), ethernet(4, None), ethernet(5, None)],
                vec![route(0, &[2, 3]), route(0, &[4])],
                "device2, device3, device4",
            ),
            (
                "a way out that is a veth",
                vec![ethernet(2, veth())],
                vec![route(0, &[2])],
                "device2",
            ),
            (
                "a bridge and its pods",
                vec![ethernet(2, bridge()), port(2, ethernet(3, veth()))],
                vec![route(24, &[2])],
                "device2 inside",
            ),
            (
                "a bridge with an uplink",
                vec![ethernet(2, bridge()), port(2, ethernet(3, None))],
                vec![route(24, &[2])],
                "device2",
            ),
            (
                "a bridge that is the way out",
                vec![ethernet(2, bridge())],
                vec![route(0, &[2])],
                "device2",
            ),
            ("a tap", vec![ethernet(2, tun())], vec![], "device2 inside"),
            (
                "a tap that is the way out",
                vec![ethernet(2, tun())],
                vec![route(0, &[2])],
                "device2",
            ),
            ("a tun device", vec![of(2, tun(), LinkLayerType::None)], vec![], ""),
            ("a pod's veth", vec![ethernet(2, veth())], vec![route(32, &[2])], ""),
        ];
        for (description, devices, routes, expected) in cases {
            assert_eq!(shown(devices, routes, &[]), expected, "{description}");
        }
    }

    #[test]
    fn patterns_choose_by_name_alone_and_never_loopback() {
        let devices = || {
            vec![
                loopback(),
                ethernet(2, None),
                ethernet(12, None),
                ethernet(3, Some(InfoKind::Veth)),
            ]
        };
        for (patterns, expected) in [
            (&["device2"][..], "device2"),
            (&["device*2"], "device2, device12"),
            (&["device3", "device2"], "device2, device3 inside"),
            (&["lo"], ""),
            (&["*"], "device2, device12, device3 inside"),
            (&["nobody"], ""),
        ] {
            assert_eq!(shown(devices(), vec![], patterns), expected, "{patterns:?}");
        }
    }

    #[test]
    fn others_that_lead_somewhere_are_named_as_unseen() {
        let down = |device| Device { flags: LinkFlags::empty(), ..device };
        let bridge = || ethernet(2, Some(InfoKind::Bridge));
        let cases = [
            ("a second network", vec![ethernet(3, None)], vec![route(24, &[3])], "(device3)"),
            ("nothing is there", vec![ethernet(3, None)], vec![], ""),
            ("it is down", vec![down(ethernet(3, None))], vec![route(24, &[3])], ""),
            ("a pod", vec![ethernet(3, Some(InfoKind::Veth))], vec![route(32, &[3])], ""),
            ("a dummy", vec![ethernet(3, Some(InfoKind::Dummy))], vec![route(24, &[3])], ""),
            (
                "a port",
                vec![bridge(), port(2, ethernet(3, None))],
                vec![route(24, &[3])],
                "device2",
            ),
            (
                "a VPN",
                vec![of(3, Some(InfoKind::Wireguard), LinkLayerType::None)],
                vec![route(24, &[3])],
                "(device3)",
            ),
        ];
        for (description, devices, routes, expected) in cases {
            assert_eq!(shown(devices, routes, &[]), expected, "{description}");
        }
        let way_out = vec![ethernet(3, Some(InfoKind::Veth))];
        assert_eq!(shown(way_out, vec![route(0, &[3])], &["other"]), "(device3)", "not chosen");
    }

    #[test]
    fn a_devices_link_layer_says_which_programs_it_gets() {
        for (layer, expected) in [
            (LinkLayerType::Ether, Framing::Ethernet),
            (LinkLayerType::None, Framing::Bare),
            (LinkLayerType::Ppp, Framing::Bare),
            (LinkLayerType::Sit, Framing::Bare),
            (LinkLayerType::Infiniband, Framing::Other(32)),
        ] {
            assert_eq!(framing(layer), expected, "{layer:?}");
        }
    }
}
