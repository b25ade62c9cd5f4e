//! `lb resolv-conf`: how a pod without a kubelet resolves names, as the kubelet would tell it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, absolute};

use anyhow::{Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Service;

use super::Done;
use super::args::RunDirArg;
use super::columns::read;
use super::output::Out;
use crate::dns;
use crate::host::{ETC_NETNS, NetnsName, ResolvConfs};
use crate::object::Kind;
use crate::store::admit::dns_label;

/// `MAXNS`, resolv.h: resolvers use no more name servers.
const MAX_NAMESERVERS: usize = 3;

/// The limits of the kubelet (`MaxDNSSearchPaths`, `MaxDNSSearchListChars`), and the length of a domain
/// behind which some resolvers abort.
const MAX_DOMAINS: usize = 32;
const MAX_DOMAINS_LENGTH: usize = 2048;
const MAX_DOMAIN_LENGTH: usize = 253;

#[derive(Args, Debug)]
pub(super) struct ResolvConfArgs {
    /// Namespace of the pod
    #[arg(short, long, default_value = "default", value_parser = parse_namespace)]
    namespace: String,
    /// Do not print it: install it for this network namespace, for what `ip netns exec` starts from now on
    #[arg(long, value_name = "NAME")]
    netns: Option<NetnsName>,
    /// Take away what is installed for the network namespace; needs no agent
    #[arg(long, requires = "netns", conflicts_with = "namespace")]
    remove: bool,
    #[command(flatten)]
    run_dir: RunDirArg,
}

/// It becomes part of a line of the file.
fn parse_namespace(word: &str) -> Result<String, String> {
    let broken = dns_label(word);
    if broken.is_empty() { Ok(word.to_owned()) } else { Err(broken.join("; ")) }
}

pub(super) async fn run(args: ResolvConfArgs, out: &mut Out) -> Done {
    let Some(netns) = &args.netns else {
        out.write_all(resolv_conf(&args).await?.as_bytes())?;
        return Ok(true);
    };
    let confs = ResolvConfs::new(Path::new(ETC_NETNS), &absolute(&args.run_dir.run_dir)?);
    if args.remove {
        let removed = confs.remove(netns)?;
        for path in &removed {
            writeln!(out, "removed {}", path.display())?;
        }
        if removed.is_empty() {
            writeln!(out, "nothing is installed for the network namespace {netns}")?;
        }
        return Ok(true);
    }
    let path = confs.install(netns, &resolv_conf(&args).await?)?;
    writeln!(out, "installed {}", path.display())?;
    if !netns.exists() {
        out.flush()?;
        writeln!(
            io::stderr(),
            "warning: there is no network namespace {netns} yet (ip netns add)"
        )?;
    }
    Ok(true)
}

/// The file for a pod of the namespace that the arguments name.
async fn resolv_conf(args: &ResolvConfArgs) -> Result<String> {
    let client = args.run_dir.client();
    let status = client.status().await?;
    let nameservers = match &status.dns {
        Some(dns) => dns.cluster_ips.iter().copied().take(MAX_NAMESERVERS).collect(),
        // Somebody else may answer, by the name that everybody knows.
        None => {
            let services =
                client.list(Kind::Service, Some(dns::NAMESPACE), Some(dns::NAME)).await?;
            let mut all = Vec::new();
            for service in &services {
                all.extend(cluster_ips(&read(service)?));
            }
            all
        }
    };
    if nameservers.is_empty() && status.dns.is_some() {
        bail!(
            "the agent answers for names, but not by a ClusterIP: lb status and the agent's log say why"
        );
    }
    if nameservers.is_empty() {
        bail!(
            "nothing answers names: the agent serves no Service {}/{} with a ClusterIP; \
             start lb agent without --no-dns, or apply such a Service",
            dns::NAMESPACE,
            dns::NAME
        );
    }
    // A node without the file has no search domains.
    let host = fs::read("/etc/resolv.conf").unwrap_or_default();
    let domains = search(&args.namespace, &status.agent.cluster_domain, search_of(&host));
    Ok(render(&domains, &nameservers))
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.iter();
    // A Service without one has the word None.
    let ips = spec.flat_map(|spec| spec.cluster_ips.iter().flatten());
    ips.filter_map(|ip| ip.parse().ok()).take(MAX_NAMESERVERS).collect()
}

/// The search domains of a `resolv.conf`: those of its last line with any (resolv.conf(5)). Lines that
/// a resolver does not understand are skipped by it, too.
fn search_of(resolv_conf: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(resolv_conf);
    let mut lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next()?, "search" | "domain").then_some(words)
    });
    lines.next_back().into_iter().flatten().map(plain).collect()
}

/// With and without a dot at the end, it is the same domain.
fn plain(domain: &str) -> String {
    if domain == "." { domain } else { domain.trim_end_matches('.') }.to_owned()
}

/// The search domains of a pod with the DNS policy ClusterFirst:
/// `generateSearchesForDNSClusterFirst` and `formDNSSearchFitsLimits`, pkg/kubelet/network/dns/dns.go.
fn search(namespace: &str, zone: &str, host: Vec<String>) -> Vec<String> {
    let cluster = [format!("{namespace}.svc.{zone}"), format!("svc.{zone}"), zone.to_owned()];
    let mut seen = BTreeSet::new();
    let distinct = cluster.into_iter().chain(host).filter(|domain| seen.insert(domain.clone()));
    let mut length = 0;
    let fitting = distinct
        .take(MAX_DOMAINS)
        .filter(|domain| domain.len() <= MAX_DOMAIN_LENGTH)
        .take_while(|domain| {
            let space = usize::from(length > 0);
            length += space + domain.len();
            length <= MAX_DOMAINS_LENGTH
        });
    fitting.collect()
}

fn render(domains: &[String], nameservers: &[IpAddr]) -> String {
    let mut text = format!("search {}\n", domains.join(" "));
    for nameserver in nameservers {
        writeln!(text, "nameserver {nameserver}").expect("a string takes it");
    }
    text + "options ndots:5\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLUSTER: [&str; 3] = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"];

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_pod_searches_its_namespace_first_and_the_hosts_domains_last() {
        let host = strings(&["corp.example", "cluster.local", "example", "corp.example"]);
        let expected = [&CLUSTER[..], &["corp.example", "example"]].concat();
        assert_eq!(search("shop", "cluster.local", host), expected);
    }

    #[test]
    fn the_limits_of_the_kubelet_hold() {
        let numbered = |count: usize, length: usize| -> Vec<String> {
            (0..count).map(|n| format!("{n:0>length$}")).collect()
        };
        let cases = [
            ("all that fit in number", numbered(29, 1), 32),
            ("one too many", numbered(30, 1), 32),
            ("longer than a name can be", numbered(1, 254), 3),
            ("as long as a name can be", numbered(1, 253), 4),
            // The cluster's three take 53 characters, each of these 211 and a space.
            ("more characters than fit", numbered(10, 211), 3 + 9),
        ];
        for (description, host, expected) in cases {
            let found = search("shop", "cluster.local", host);
            assert_eq!(found.len(), expected, "{description}");
            assert_eq!(found[..3], CLUSTER, "{description}");
            assert!(found.join(" ").len() <= MAX_DOMAINS_LENGTH, "{description}");
        }
    }

    #[test]
    fn the_hosts_last_line_with_domains_counts() {
        for (text, expected) in [
            ("nameserver 1.1.1.1\n", &[][..]),
            ("search a b.\n", &["a", "b"]),
            ("search a\nsearch\n", &[]),
            ("domain a\n  search\tb c \nnonsense x\n", &["b", "c"]),
            ("search a\ndomain b", &["b"]),
            ("#search a\n; domain b\nsearch .\n", &["."]),
        ] {
            assert_eq!(search_of(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(search_of(b"\xff\nsearch a\n"), ["a"], "a byte that is no text");
    }

    #[test]
    fn the_name_servers_are_the_cluster_ips() {
        let of = |ips: &[&str]| {
            let service = json!({"spec": {"clusterIPs": ips}});
            cluster_ips(&read(&service).expect("a Service"))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&["10.96.0.10", "fd00::a"]), ["10.96.0.10", "fd00::a"]);
        assert_eq!(of(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]).len(), MAX_NAMESERVERS);
        assert!(of(&["None"]).is_empty(), "headless");
    }

    #[test]
    fn it_is_written_as_resolvers_read_it() {
        let servers = ["10.96.0.10", "fd00::a"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(
            render(&strings(&CLUSTER), &servers),
            "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver 10.96.0.10\n\
             nameserver fd00::a\n\
             options ndots:5\n"
        );
    }
}
