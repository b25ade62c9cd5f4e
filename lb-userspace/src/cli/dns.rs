//! The options of `lb agent` about names.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use hickory_server::proto::rr::Name;
use ipnet::IpNet;

use super::agent::parse_range;
use crate::dns::{self, ForwardConfig, Zones};
use crate::host::Inherited;

/// Where the node's own resolvers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Args, Debug)]
pub(super) struct DnsArgs {
    /// Domain under which Services have names
    #[arg(
        long,
        env = "LB_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "NAME",
        value_parser = parse_domain
    )]
    cluster_domain: Name,
    /// Do not answer for names: no Service kube-system/kube-dns
    #[arg(long, env = "LB_NO_DNS", conflicts_with_all = ["dns_listen", "dns_allow", "dns_upstream"])]
    no_dns: bool,
    /// Where questions about names come to, by way of kube-dns' ClusterIP [default: a node address
    /// and a free port]
    #[arg(
        long,
        env = "LB_DNS_LISTEN",
        value_name = "ADDRESS:PORT[,ADDRESS:PORT]",
        value_parser = parse_listener,
        value_delimiter = ','
    )]
    dns_listen: Vec<SocketAddr>,
    /// Who may ask for names, besides this node and its workloads
    #[arg(
        long,
        env = "LB_DNS_ALLOW",
        value_name = "CIDR[,CIDR]",
        value_parser = parse_range,
        value_delimiter = ','
    )]
    dns_allow: Vec<IpNet>,
    /// Who is asked for names outside the cluster's domain [default: as /etc/resolv.conf says]
    #[arg(
        long,
        env = "LB_DNS_UPSTREAM",
        value_name = "ADDRESS[:PORT][,ADDRESS[:PORT]]",
        value_parser = parse_upstream,
        value_delimiter = ','
    )]
    dns_upstream: Vec<SocketAddr>,
    /// How long an answer about a Service holds, in seconds
    #[arg(
        long,
        env = "LB_DNS_TTL",
        default_value_t = 5,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(0..=30)
    )]
    dns_ttl: u32,
}

impl DnsArgs {
    /// The zones of an agent whose Services have addresses in `ranges`.
    pub(super) fn zones(&self, ranges: &[IpNet]) -> Zones {
        Zones::new(&self.cluster_domain, self.dns_ttl, ranges.to_vec())
    }

    /// `--dns-listen`
    pub(super) fn listeners(&self) -> &[SocketAddr] {
        &self.dns_listen
    }

    /// The server, unless there shall be none.
    pub(super) fn server(
        &self,
        zones: &Zones,
        inherited: Inherited,
        ranges: &[IpNet],
        node: &str,
    ) -> Result<Option<dns::Config>> {
        let kept = inherited.udp.len() + inherited.tcp.len();
        for at in &self.dns_listen {
            ensure!(
                !ranges.iter().any(|range| range.contains(&at.ip())),
                "--dns-listen {at} is in the range of ClusterIPs; name an address of this node, and the \
                 ClusterIP of {}/{} will lead there",
                dns::NAMESPACE,
                dns::NAME
            );
        }
        if self.no_dns {
            if kept > 0 {
                tracing::warn!(
                    "--no-dns: nothing will be answered at the sockets that systemd keeps"
                );
            }
            return Ok(None);
        }
        ensure!(
            kept == 0 || self.dns_listen.is_empty(),
            "--dns-listen and sockets kept by systemd exclude each other; leave out one of them"
        );
        Ok(Some(dns::Config {
            listen: self.dns_listen.clone(),
            inherited,
            allow: self.dns_allow.clone(),
            forward: ForwardConfig {
                upstreams: self.dns_upstream.clone(),
                resolv_conf: PathBuf::from(RESOLV_CONF),
            },
            zones: zones.clone(),
            service_cidrs: ranges.to_vec(),
            node_name: node.to_owned(),
        }))
    }
}

/// A domain of labels as Services have them.
fn parse_domain(word: &str) -> Result<Name, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let domain = word.strip_suffix('.').unwrap_or(word);
    if !domain.split('.').all(label) {
        return Err("not a domain such as cluster.local".to_owned());
    }
    // A Service's name needs room in front of it: 63 bytes each for port, Service and namespace.
    const ROOM: usize = 253 - 200;
    if domain.len() > ROOM {
        return Err(format!("longer than {ROOM} characters, which leaves no room for Services"));
    }
    let mut name = Name::from_ascii(domain).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

/// An address that pods can reach, with a port.
fn parse_listener(word: &str) -> Result<SocketAddr, String> {
    let at = parse_socket_address(word)?;
    let ip = at.ip();
    let why = if ip.is_loopback() {
        "each pod has a loopback of its own"
    } else if ip.is_multicast() {
        "nobody can be answered from there"
    } else if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        "it means another place on each device"
    } else {
        return Ok(at);
    };
    Err(format!("{why}; name an address of this node, or [::]:{} for all", at.port()))
}

/// An address with a port.
pub(super) fn parse_socket_address(word: &str) -> Result<SocketAddr, String> {
    word.parse().map_err(|_| {
        "not an address with a port such as 10.0.0.1:5353 or [fd00::1]:5353".to_owned()
    })
}

/// An address, with port 53 unless it has one.
fn parse_upstream(word: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok((address, dns::PORT).into());
    }
    if word.parse().is_ok_and(|at: SocketAddr| at.port() == 0) {
        return Err("port 0 is nobody's".to_owned());
    }
    word.parse()
        .map_err(|_| "not an address such as 9.9.9.9, 9.9.9.9:53 or [2620:fe::9]:53".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_one_that_services_can_stand_in_front_of() {
        for domain in ["cluster.local", "Cluster.Local.", "k8s", "a-1.example"] {
            assert!(parse_domain(domain).is_ok(), "{domain}");
        }
        let long = ["abcdefghi"; 6].join(".");
        for domain in ["", ".", "a..b", "-a.b", "a b", "a_b", &long] {
            assert!(parse_domain(domain).is_err(), "{domain}");
        }
    }

    #[test]
    fn a_listener_is_where_pods_can_reach_it() {
        for word in ["10.0.0.1:5353", "[fd00::1]:53", "0.0.0.0:5353", "[::]:5353", "10.0.0.1:0"] {
            assert!(parse_listener(word).is_ok(), "{word}");
        }
        for (word, remedy) in [
            ("10.0.0.1", "such as 10.0.0.1:5353"),
            ("foo", "such as 10.0.0.1:5353"),
            ("127.0.0.1:53", "loopback"),
            ("[::1]:53", "loopback"),
            ("224.0.0.1:53", "nobody"),
            ("[fe80::1]:53", "each device"),
        ] {
            let error = parse_listener(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }

    #[test]
    fn an_upstream_without_port_has_the_usual_one() {
        for (word, address) in [
            ("9.9.9.9", "9.9.9.9:53"),
            ("9.9.9.9:5353", "9.9.9.9:5353"),
            ("2620:fe::9", "[2620:fe::9]:53"),
            ("[2620:fe::9]:5353", "[2620:fe::9]:5353"),
        ] {
            assert_eq!(parse_upstream(word).expect(word).to_string(), address);
        }
        assert!(parse_upstream("dns.example").is_err());
    }
}
