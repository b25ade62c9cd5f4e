//! Names of addresses: `in-addr.arpa` (RFC 1035, section 3.5) and `ip6.arpa` (RFC 3596, section 2.5).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use hickory_server::proto::rr::Name;
use ipnet::IpNet;

/// The addresses that a reverse name stands for: one, or those that begin alike. Also how many labels
/// stand in front of what could be understood.
pub(super) fn parse(name: &Name) -> Option<(IpNet, usize)> {
    let labels = name.iter().count();
    // Nearly every name ends here.
    if name.iter().next_back()? != b"arpa" {
        return None;
    }
    (2..=labels).rev().find_map(|most| {
        let understood = name.trim_to(most);
        let addresses = understood.parse_arpa_name().ok().filter(|_| is_canonical(&understood))?;
        Some((addresses, labels - most))
    })
}

/// Whether each number is written in the one way that counts: the library also takes `+1` and `01`.
fn is_canonical(name: &Name) -> bool {
    let digits = |label: &[u8]| {
        label.iter().all(u8::is_ascii_hexdigit) && (label.len() == 1 || label[0] != b'0')
    };
    let count = name.iter().count() - 2;
    name.iter().take(count).all(digits)
}

/// The zone of a range in which the addresses of `name` lie, `below` labels from its left: it begins at
/// the first whole octet, or hexadecimal digit, that holds the range's prefix, and never at an address.
pub(super) fn zone(name: &Name, below: usize, range: &IpNet) -> Name {
    let (bits_of_label, all) = if range.addr().is_ipv4() { (8, 4) } else { (4, 32) };
    let labels = usize::from(range.prefix_len().div_ceil(bits_of_label)).min(all - 1) + 2;
    name.trim_to(labels.min(name.iter().count() - below))
}

/// All addresses of a network.
pub(super) fn span(network: IpNet) -> RangeInclusive<IpAddr> {
    network.network()..=network.broadcast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_an_address_or_for_those_that_begin_alike() {
        for (name, expected) in [
            ("20.0.96.10.in-addr.arpa.", Some(("10.96.0.20/32", 0))),
            ("96.10.in-addr.arpa.", Some(("10.96.0.0/16", 0))),
            ("in-addr.arpa.", Some(("0.0.0.0/0", 0))),
            ("x.96.10.in-addr.arpa.", Some(("10.96.0.0/16", 1))),
            ("b._dns-sd._udp.0.0.96.10.in-addr.arpa.", Some(("10.96.0.0/32", 3))),
            ("x.20.0.96.10.in-addr.arpa.", Some(("10.96.0.20/32", 1))),
            ("256.0.96.10.in-addr.arpa.", Some(("10.96.0.0/24", 1))),
            ("020.0.96.10.in-addr.arpa.", Some(("10.96.0.0/24", 1))),
            ("d.f.ip6.arpa.", Some(("fd00::/8", 0))),
            ("arpa.", None),
            ("home.arpa.", None),
            ("example.com.", None),
            (".", None),
        ] {
            let parsed = parse(&name.parse().expect("a name"));
            let expected = expected.map(|(net, below)| (net.parse().expect("a network"), below));
            assert_eq!(parsed, expected, "{name}");
        }
    }
}
