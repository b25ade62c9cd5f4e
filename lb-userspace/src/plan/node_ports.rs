//! `--nodeport-addresses`: where NodePorts are served (`NodePortAddresses` of Kubernetes'
//! `pkg/proxy/util/nodeport_addresses.go`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;

/// The loopback ranges, and the address that stands for each.
const LOOPBACK: [(IpNet, IpAddr); 2] = [
    (
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpAddr::V4(Ipv4Addr::LOCALHOST),
    ),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)), IpAddr::V6(Ipv6Addr::LOCALHOST)),
];

/// The addresses on which this node serves NodePorts. `127.0.0.1` and `::1` stand for their whole
/// loopback range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePortAddresses(Arc<[IpAddr]>);

impl NodePortAddresses {
    /// Those of the node's own addresses that lie in `ranges`. A family of which no range is given
    /// is not narrowed.
    pub fn select(node: &BTreeSet<IpAddr>, ranges: &[IpNet]) -> Self {
        let own = node.iter().filter(|address| is_reachable(**address));
        let own = own.map(|&address| (IpNet::from(address), address)).chain(LOOPBACK);
        let is_selected = |range: &IpNet| {
            let family = Family::of(range.addr());
            let mut chosen = ranges.iter().filter(|r| Family::of(r.addr()) == family).peekable();
            let overlaps = |chosen: &IpNet| chosen.contains(range) || range.contains(chosen);
            chosen.peek().is_none() || chosen.any(overlaps)
        };
        let selected = own.filter(|(range, _)| is_selected(range)).map(|(_, address)| address);
        Self(selected.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Where a server of the node listens to be reached by these: a family that `ranges` do not narrow by
    /// its unspecified address.
    pub fn listening(&self, ranges: &[IpNet]) -> Vec<IpAddr> {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let is_narrowed = |address: &IpAddr| {
            ranges.iter().any(|range| Family::of(range.addr()) == Family::of(*address))
        };
        let whole = all.into_iter().filter(|address| !is_narrowed(address));
        whole.chain(self.iter().filter(is_narrowed)).collect()
    }

    /// The addresses, sorted.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().copied()
    }
}

/// Whether an address means this node wherever it is used. A link-local one of IPv6 means another
/// host on each link; kube-proxy leaves it out, too (`GetAllLocalAddresses` in `pkg/proxy/ipvs`).
fn is_reachable(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str =
        "10.0.0.1 169.254.1.1 192.0.2.7 127.0.0.1 127.0.0.53 fd00::1 2001:db8::7 fe80::1 ::1";

    fn selected(ranges: &str) -> String {
        let node = NODE.split(' ').map(|word| word.parse().expect("an address")).collect();
        let ranges: Vec<IpNet> =
            ranges.split_whitespace().map(|word| word.parse().expect("a range")).collect();
        let selected = NodePortAddresses::select(&node, &ranges);
        selected.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_narrow_their_own_family_as_in_kube_proxy() {
        let all_v4 = "10.0.0.1 127.0.0.1 169.254.1.1 192.0.2.7";
        let all_v6 = "::1 2001:db8::7 fd00::1";
        for (ranges, v4, v6) in [
            ("", all_v4, all_v6),
            ("0.0.0.0/0 ::/0", all_v4, all_v6),
            ("10.0.0.0/8", "10.0.0.1", all_v6),
            ("2001:db8::/32", all_v4, "2001:db8::7"),
            ("192.0.2.0/24 10.0.0.1/32 fd00::/8", "10.0.0.1 192.0.2.7", "fd00::1"),
            ("127.0.0.0/8 ::1/128", "127.0.0.1", "::1"),
            ("127.0.0.0/16", "127.0.0.1", all_v6),
            ("127.0.0.53/32", "127.0.0.1", all_v6),
            ("10.0.0.0/8 127.0.0.0/8", "10.0.0.1 127.0.0.1", all_v6),
            ("203.0.113.0/24 2001:db8:1::/48", "", ""),
        ] {
            let expected = format!("{v4} {v6}");
            assert_eq!(selected(ranges), expected.trim(), "--nodeport-addresses {ranges:?}");
        }
    }

    #[test]
    fn servers_listen_on_every_address_of_a_family_that_is_not_narrowed() {
        let node = NODE.split(' ').map(|word| word.parse().expect("an address")).collect();
        for (ranges, expected) in [
            ("", "0.0.0.0 ::"),
            ("10.0.0.0/8 192.0.2.0/24", ":: 10.0.0.1 192.0.2.7"),
            ("::1/128", "0.0.0.0 ::1"),
            ("127.0.0.0/8 2001:db8::/32", "127.0.0.1 2001:db8::7"),
            ("203.0.113.0/24", "::"),
        ] {
            let ranges: Vec<IpNet> =
                ranges.split_whitespace().map(|word| word.parse().expect("a range")).collect();
            let places = NodePortAddresses::select(&node, &ranges).listening(&ranges);
            let places: Vec<_> = places.iter().map(ToString::to_string).collect();
            assert_eq!(places.join(" "), expected, "--nodeport-addresses {ranges:?}");
        }
    }

    #[test]
    fn loopback_is_served_though_no_device_has_it() {
        let selected = NodePortAddresses::select(&BTreeSet::new(), &[]);
        let expected: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(selected.iter().collect::<Vec<_>>(), expected);
    }
}
