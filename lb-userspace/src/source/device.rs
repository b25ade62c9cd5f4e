//! Network devices as the kernel lists them, and what their kinds tell.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use crate::host::{Netlink, NetlinkError};

/// What the rules look at in a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    /// Hardware has none.
    pub(super) kind: Option<InfoKind>,
    /// What its packets begin with.
    pub(super) layer: LinkLayerType,
    pub(super) flags: LinkFlags,
    /// The bridge whose port it is, or another master.
    pub(super) master: Option<u32>,
}

impl Device {
    /// Whether a workload is at its other end.
    pub(super) fn is_workloads(&self) -> bool {
        match &self.kind {
            Some(InfoKind::Veth | InfoKind::Netkit) => true,
            Some(InfoKind::Tun) => self.layer == LinkLayerType::Ether,
            _ => false,
        }
    }

    /// Whether it is a bridge, which has ports.
    pub(super) fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }

    /// Whether it is the tap of a virtual machine: a tun device of Ethernet.
    pub(super) fn is_tap(&self) -> bool {
        self.kind == Some(InfoKind::Tun) && self.layer == LinkLayerType::Ether
    }

    /// Whether workloads alone are behind it. `ports` are those of a bridge.
    pub(super) fn leads_to_workloads<'d>(&self, ports: impl IntoIterator<Item = &'d Self>) -> bool {
        if self.is_bridge() {
            ports.into_iter().all(Self::is_workloads)
        } else {
            self.is_workloads()
        }
    }
}

/// The device with this index, if there is one.
pub(super) fn get(netlink: &mut Netlink, index: u32) -> Result<Option<Device>, NetlinkError> {
    let mut question = without_statistics();
    question.header.index = index;
    match netlink.get(&RouteNetlinkMessage::GetLink(question)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Device::from(&message))),
        Ok(other) => Err(NetlinkError::Answer(format!("unexpected message {other:?}"))),
        Err(NetlinkError::Refused(_)) => Ok(None),
        Err(error @ (NetlinkError::Socket(_) | NetlinkError::Answer(_))) => Err(error),
    }
}

/// The devices of this network namespace.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Device>, NetlinkError> {
    selected(netlink, without_statistics())
}

/// The ports of the bridge with this index.
pub(super) fn ports(netlink: &mut Netlink, bridge: u32) -> Result<Vec<Device>, NetlinkError> {
    let mut question = without_statistics();
    question.attributes.push(LinkAttribute::Controller(bridge));
    let mut ports = selected(netlink, question)?;
    // Whether or not the kernel has selected them.
    ports.retain(|port| port.master == Some(bridge));
    Ok(ports)
}

fn selected(netlink: &mut Netlink, question: LinkMessage) -> Result<Vec<Device>, NetlinkError> {
    let mut devices = Vec::new();
    for object in netlink.list(&RouteNetlinkMessage::GetLink(question))? {
        if let RouteNetlinkMessage::NewLink(message) = &object {
            devices.push(Device::from(message));
        }
    }
    Ok(devices)
}

fn without_statistics() -> LinkMessage {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    question
}

impl From<&LinkMessage> for Device {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; a few variants are ours")]
    fn from(message: &LinkMessage) -> Self {
        let header = &message.header;
        let mut device = Self {
            index: header.index,
            name: String::new(),
            kind: None,
            layer: header.link_layer_type,
            flags: header.flags,
            master: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
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
pub(super) mod tests {
    use super::*;

    /// A device that is up.
    pub(in crate::source) fn of(
        index: u32,
        kind: Option<InfoKind>,
        layer: LinkLayerType,
    ) -> Device {
        let name = format!("device{index}");
        Device { index, name, kind, layer, flags: LinkFlags::Up, master: None }
    }

    #[test]
    fn a_device_leads_to_workloads_by_its_kind_and_a_bridge_by_its_ports() {
        let ethernet = |kind| of(7, kind, LinkLayerType::Ether);
        let hardware = || ethernet(None);
        let veth = || ethernet(Some(InfoKind::Veth));
        let tap = || ethernet(Some(InfoKind::Tun));
        let bridge = || ethernet(Some(InfoKind::Bridge));
        let netkit = of(7, Some(InfoKind::Netkit), LinkLayerType::None);
        let tun = of(7, Some(InfoKind::Tun), LinkLayerType::None);
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
            let elsewhere = ethernet(Some(kind.clone()));
            assert!(!elsewhere.leads_to_workloads(&[]), "{kind}");
            assert!(!bridge().leads_to_workloads(&[veth(), elsewhere]), "bridge with {kind}");
        }
    }
}
