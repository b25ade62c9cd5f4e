//! What the values of the agent's flags may be.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use lb_common::maglev;

use crate::host::PortRange;
use crate::store::allocate::NODE_PORTS;

/// A range without host bits, small enough for an allocator.
pub(super) fn parse_cidr(word: &str) -> Result<IpNet, String> {
    let cidr = parse_range(word)?;
    if matches!(cidr, IpNet::V6(v6) if v6.prefix_len() < 64) {
        return Err("an IPv6 range must be a /64 or smaller".to_owned());
    }
    Ok(cidr)
}

/// Ports that are nobody's else.
pub(super) fn parse_snat_ports(word: &str) -> Result<PortRange, String> {
    /// Each endpoint takes so many connections at the least.
    const LEAST: u32 = 1_024;
    let range: PortRange = word.parse()?;
    let (first, last) = NODE_PORTS;
    let node_ports = PortRange::new(first, last).ok_or("no NodePorts")?;
    if range.overlaps(node_ports) {
        return Err(format!(
            "{range} has NodePorts, which are {node_ports}; a range above is usual"
        ));
    }
    if range.first() < 1_024 {
        return Err("ports below 1024 are those of well-known services".to_owned());
    }
    if range.count() < LEAST {
        let count = range.count();
        return Err(format!("{count} ports are too few; {LEAST} are the least, 16384 are usual"));
    }
    Ok(range)
}

/// A range without host bits.
pub(in crate::cli) fn parse_range(word: &str) -> Result<IpNet, String> {
    let cidr: IpNet = word
        .parse()
        .map_err(|_| "not a range such as 10.96.0.0/12; one address is 10.9.0.1/32".to_owned())?;
    if cidr.trunc() != cidr {
        return Err(format!(
            "{cidr} has bits behind its prefix; {} is the range it lies in",
            cidr.trunc()
        ));
    }
    Ok(cidr)
}

/// One of the sizes that a Maglev table can have.
pub(super) fn parse_table_size(word: &str) -> Result<u32, String> {
    let size = word.parse().map_err(|_| format!("{word} is no number of slots"))?;
    if maglev::is_usable(size) {
        return Ok(size);
    }
    let next = maglev::next_size(size).map_or_else(String::new, |next| format!(", such as {next}"));
    Err(format!("a table can have one of {:?} slots{next}", maglev::SIZES))
}

/// Nobody can bind a port that packets get, the agent no more than others.
pub(super) fn listens_elsewhere(
    snat_ports: PortRange,
    flag: &str,
    listeners: &[SocketAddr],
) -> Result<()> {
    for at in listeners {
        ensure!(
            !snat_ports.contains(at.port()),
            "{flag} {at} has one of --snat-ports {snat_ports}; choose a port outside, or other --snat-ports"
        );
    }
    Ok(())
}

pub(super) fn one_of_each_family(cidrs: &[IpNet]) -> Result<()> {
    let ipv4 = cidrs.iter().filter(|cidr| cidr.addr().is_ipv4()).count();
    let list: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
    ensure!(
        ipv4 <= 1 && cidrs.len() - ipv4 <= 1,
        "--service-cidr {} has more than one range of a family; give one of IPv4, one of IPv6, or both",
        list.join(",")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_of_one_family_are_refused_by_name() {
        let cidrs = |words: &[&str]| -> Vec<_> {
            words.iter().map(|word| parse_cidr(word).expect("a range")).collect()
        };
        assert!(one_of_each_family(&cidrs(&["10.96.0.0/12", "fd00::/112"])).is_ok());
        let error = one_of_each_family(&cidrs(&["10.96.0.0/12", "10.200.0.0/16"]))
            .expect_err("two of IPv4")
            .to_string();
        assert!(error.contains("10.200.0.0/16"), "{error}");
    }

    #[test]
    fn table_sizes_that_cannot_be_are_refused_with_one_that_can() {
        assert_eq!(parse_table_size("251"), Ok(251));
        for (word, remedy) in [
            ("many", "many is no number"),
            ("16384", "such as 32749"),
            ("0", "such as 251"),
            ("1000000", "one of [251"),
        ] {
            let error = parse_table_size(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }

    #[test]
    fn snat_ports_are_many_and_nobodys_else() {
        for word in ["61000-65535", "1024-29999", "32768-33791"] {
            assert!(parse_snat_ports(word).is_ok(), "{word}");
        }
        let at = |word: &str| [word.parse().expect("an address")];
        let range = parse_snat_ports("61000-65535").expect("the usual one");
        assert!(listens_elsewhere(range, "--dns-listen", &at("10.0.0.1:60999")).is_ok());
        let error = listens_elsewhere(range, "--dns-listen", &at("10.0.0.1:61000"));
        let error = error.expect_err("one of them").to_string();
        assert!(error.contains("--dns-listen 10.0.0.1:61000"), "{error}");
        for (word, remedy) in [
            ("49152", "such as 49152-65535"),
            ("32000-40000", "NodePorts, which are 30000-32767"),
            ("32768-33790", "1023 ports are too few; 1024"),
            ("1023-9999", "well-known"),
        ] {
            let error = parse_snat_ports(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }

    #[test]
    fn ranges_that_cannot_be_meant_are_refused_with_the_remedy() {
        assert!(parse_cidr("10.96.0.0/12").is_ok());
        assert!(parse_cidr("fd00:10:96::/112").is_ok());
        for (word, remedy) in [
            ("10.96.0.1/12", "10.96.0.0/12 is the range"),
            ("10.96.0.0", "such as 10.96.0.0/12"),
            ("fd00::/48", "/64"),
        ] {
            let error = parse_cidr(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }
}
