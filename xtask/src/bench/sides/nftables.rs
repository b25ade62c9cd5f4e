//! Rules as kube-proxy writes them in its mode "nftables", as far as they lead packets from outside to endpoints: one look-up in a
//! verdict map, a chain for each Service's port that chooses, a chain for each endpoint that translates. Left out are the chains by
//! which kube-proxy refuses and filters, two of which every packet passes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Service;
use crate::bench::machine;
use crate::stage::pod::Pod;
use crate::stage::process;
use crate::workspace;

/// The packet's mark that says: the node stands in for the client. kube-proxy's.
const MASQUERADE: u32 = 0x4000;

/// Gives the node the rules for these Services; `file` takes them.
pub(super) fn apply(file: &Path, node: &Pod, services: &[Service]) -> Result<()> {
    fs::write(file, rules(services)).with_context(|| format!("cannot write {}", file.display()))?;
    let mut nft = nft()?;
    nft.arg("-f").arg(file);
    node.place(&mut nft)?;
    process::capture(&mut nft).context("nft does not take the rules")?;
    Ok(())
}

/// Its name and version.
pub(in crate::bench) fn version() -> Result<String> {
    Ok(machine::first_line(nft()?.arg("--version")))
}

fn nft() -> Result<Command> {
    Ok(Command::new(workspace::which("nft").context("the program nft is missing")?))
}

fn rules(services: &[Service]) -> String {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for service in services {
        for protocol in ["tcp", "udp"] {
            let (name, frontend) = (service.name, service.frontend());
            let chain = format!("service-{name}-{protocol}");
            let (address, port) = (frontend.ip(), frontend.port());
            elements.push(format!("{address} . {protocol} . {port} : goto {chain}"));
            choose(&mut chains, &chain, service, protocol);
        }
    }
    let elements = elements.join(",\n\t\t\t");
    format!(
        "table ip services {{
	map service-ips {{
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = {{
			{elements}
		}}
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		jump masquerading
	}}
	chain services {{
		ip daddr . meta l4proto . th dport vmap @service-ips
	}}
	chain masquerading {{
		meta mark & {MASQUERADE:#x} == 0 return
		meta mark set meta mark ^ {MASQUERADE:#x}
		masquerade fully-random
	}}
{chains}}}
"
    )
}

/// The chain of a Service's port, and those of its endpoints.
fn choose(chains: &mut String, chain: &str, service: &Service, protocol: &str) {
    let mut verdicts = Vec::new();
    for (number, endpoint) in service.endpoints.iter().enumerate() {
        let to = format!("endpoint-{number}-{}-{protocol}", service.name);
        let rule = format!("meta l4proto {protocol} dnat to {endpoint}");
        let _ = writeln!(chains, "\tchain {to} {{\n\t\t{rule}\n\t}}");
        verdicts.push(format!("{number} : goto {to}"));
    }
    let _ = writeln!(chains, "\tchain {chain} {{");
    if service.masquerade {
        let _ = writeln!(chains, "\t\tmeta mark set meta mark | {MASQUERADE:#x}");
    }
    let (count, verdicts) = (service.endpoints.len(), verdicts.join(", "));
    let _ = writeln!(chains, "\t\tnumgen random mod {count} vmap {{ {verdicts} }}\n\t}}");
}

#[cfg(test)]
mod tests {
    use super::super::endpoint;
    use super::*;

    fn service(name: &'static str, masquerade: bool) -> Service {
        Service { name, node_port: 30_080, endpoints: vec![endpoint(0), endpoint(1)], masquerade }
    }

    #[test]
    fn a_port_of_each_protocol_leads_to_one_of_the_endpoints() {
        let rules = rules(&[service("near", false)]);
        for protocol in ["tcp", "udp"] {
            for line in [
                format!("192.0.2.1 . {protocol} . 30080 : goto service-near-{protocol}"),
                format!(
                    "{{ 0 : goto endpoint-0-near-{protocol}, 1 : goto endpoint-1-near-{protocol} }}"
                ),
                format!("meta l4proto {protocol} dnat to 10.244.0.11:9000"),
            ] {
                assert!(rules.contains(&line), "{line} is missing:\n{rules}");
            }
        }
        assert_eq!(rules.matches("numgen random mod 2 vmap").count(), 2, "{rules}");
    }

    #[test]
    fn only_where_the_node_stands_in_are_packets_marked() {
        let mark = "meta mark set meta mark | 0x4000";
        assert!(!rules(&[service("near", false)]).contains(mark));
        let both = rules(&[service("near", false), service("far", true)]);
        assert_eq!(both.matches(mark).count(), 2, "once for each protocol:\n{both}");
    }

    #[test]
    fn every_chain_that_is_jumped_to_is_there() {
        let rules = rules(&[service("near", false), service("far", true)]);
        let words: Vec<&str> = rules.split(|c: char| c.is_whitespace() || c == ',').collect();
        for pair in words.windows(2).filter(|pair| ["goto", "jump"].contains(&pair[0])) {
            let chain = format!("chain {} {{", pair[1]);
            assert!(rules.contains(&chain), "{chain} is missing:\n{rules}");
        }
    }
}
