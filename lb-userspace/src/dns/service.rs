//! The Service that this server itself is: `kube-system/kube-dns`, as workloads of Kubernetes know it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::api::types::{Outcome, SourceStatus, Submitted, Verdict};
use crate::engine::Engine;
use crate::object::{Key, Kind};
use crate::plan::Family;
use crate::source::OWN;
use crate::store::model::SERVICE_NAME_LABEL;

/// Its namespace.
pub const NAMESPACE: &str = "kube-system";
/// Its name.
pub const NAME: &str = "kube-dns";
/// The port that clients use.
pub const PORT: u16 = 53;

/// Which address of the service CIDR it has, counted from the network's (kubeadm's `GetDNSIP`).
const TENTH: u128 = 10;

/// Its key.
pub(super) fn key() -> Key {
    Key::new(Kind::Service, NAMESPACE, NAME)
}

/// The ports of an earlier agent's listeners, which clients may still be using, by family.
pub(super) async fn earlier_ports(engine: &Engine) -> Vec<(Family, u16)> {
    let slices = engine.list(Kind::EndpointSlice, Some(NAMESPACE), None).await;
    let ours = slices
        .iter()
        .filter(|slice| slice["metadata"]["labels"][SERVICE_NAME_LABEL].as_str() == Some(NAME));
    let port = |slice: &Value| {
        let is_v4 = slice["addressType"].as_str()? == "IPv4";
        let port = u16::try_from(slice["ports"][0]["port"].as_u64()?).ok()?;
        Some((if is_v4 { Family::V4 } else { Family::V6 }, port))
    };
    ours.filter_map(|slice| port(slice)).collect()
}

/// Makes the Service lead to `listeners`, on the node of this name. Whether there is one, and it is
/// the agent's.
pub(super) async fn announce(
    engine: &Engine,
    ranges: &[IpNet],
    listeners: &[SocketAddr],
    node: &str,
) -> bool {
    let slices: Vec<Value> = listeners.iter().map(|at| slice(*at, node)).collect();
    let stored = engine.list(Kind::Service, Some(NAMESPACE), Some(NAME)).await;
    let had = stored.first().map(|service| addresses_of(service)).unwrap_or_default();
    let (ranges, addresses) = wanted(ranges, &had);
    if had.first().is_some_and(|first| addresses.first() != Some(first)) {
        // The family of its first address cannot change, but there is no range for it any more.
        submit(engine, None, &[]).await;
    }
    let mut outcomes = submit(engine, Some(service(&ranges, &addresses)), &slices).await;
    if let Some(reason) = refusal(&outcomes).filter(|_| !addresses.is_empty()) {
        tracing::warn!(
            "names are not served on the usual address: {reason}. They stay on another even when it \
             is free again; an agent started once with --no-dns gives that up"
        );
        outcomes = submit(engine, Some(service(&ranges, &[])), &slices).await;
    }
    let refused = refusal(&outcomes);
    if let Some(reason) = refused {
        tracing::error!("names are served, but not by a ClusterIP: {reason}");
    }
    let (kind, path) = (OWN.to_owned(), None);
    engine.source(SourceStatus { kind, path, synced: true, error: None }).await;
    refused.is_none()
}

/// The ClusterIPs of a Service as it is stored.
fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    listed.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

/// The ranges in the order of the Service's families, and its addresses in them: those that it had,
/// which stay, else the tenth of each. No addresses, where a range has no tenth, leave the choice to
/// the agent.
fn wanted(ranges: &[IpNet], had: &[IpAddr]) -> (Vec<IpNet>, Vec<IpAddr>) {
    let of_family = |range: &IpNet| had.iter().find(|ip| ip.is_ipv4() == range.addr().is_ipv4());
    let mut ranges = ranges.to_vec();
    // The first family of a Service cannot change.
    ranges.sort_by_key(|range| of_family(range).is_none_or(|ip| Some(ip) != had.first()));
    let addresses: Option<Vec<IpAddr>> =
        ranges.iter().map(|range| of_family(range).copied().or_else(|| tenth(range))).collect();
    (ranges, addresses.unwrap_or_default())
}

async fn submit(engine: &Engine, service: Option<Value>, slices: &[Value]) -> Vec<Outcome> {
    let objects = service.into_iter().chain(slices.iter().cloned());
    let objects = objects.map(|object| Submitted { object, position: String::new() });
    engine.replace_file(Path::new(OWN).to_owned(), objects.collect(), Vec::new()).await
}

/// Why the Service itself was refused.
fn refusal(outcomes: &[Outcome]) -> Option<&str> {
    match &outcomes.first()?.result {
        Verdict::Refused(reason) => Some(reason),
        Verdict::Created
        | Verdict::Configured
        | Verdict::Unchanged
        | Verdict::Deleted
        | Verdict::NotFound => None,
    }
}

/// The Service, as kubeadm makes it; without addresses the agent chooses them.
fn service(ranges: &[IpNet], addresses: &[IpAddr]) -> Value {
    let families: Vec<&str> = ranges.iter().map(family).collect();
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let mut spec = json!({
        "type": "ClusterIP",
        "ipFamilies": families,
        "ipFamilyPolicy": policy,
        "ports": [
            { "name": "dns", "port": PORT, "protocol": "UDP", "targetPort": PORT },
            { "name": "dns-tcp", "port": PORT, "protocol": "TCP", "targetPort": PORT },
        ],
    });
    if let Some(first) = addresses.first() {
        spec["clusterIP"] = json!(first);
        spec["clusterIPs"] = json!(addresses);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": NAME,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "lb",
            },
        },
        "spec": spec,
    })
}

/// One listener as the Service's endpoint.
fn slice(at: SocketAddr, node: &str) -> Value {
    let (family, suffix) = match at {
        SocketAddr::V4(_) => ("IPv4", "ipv4"),
        SocketAddr::V6(_) => ("IPv6", "ipv6"),
    };
    // Listeners differ in port, or in address.
    let address = at.ip().to_string().replace([':', '.'], "-");
    let name = format!("{NAME}-{suffix}-{}-{}", address.trim_matches('-'), at.port());
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": { SERVICE_NAME_LABEL: NAME },
        },
        "addressType": family,
        "endpoints": [
            { "addresses": [at.ip()], "conditions": { "ready": true }, "nodeName": node },
        ],
        "ports": [
            { "name": "dns", "port": at.port(), "protocol": "UDP" },
            { "name": "dns-tcp", "port": at.port(), "protocol": "TCP" },
        ],
    })
}

fn family(range: &IpNet) -> &'static str {
    if range.addr().is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The tenth address of a range, if that is one that Services may have.
fn tenth(range: &IpNet) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(network) => {
            let number = u128::from(network.to_bits()) + TENTH;
            IpAddr::V4(u32::try_from(number).ok()?.into())
        }
        IpAddr::V6(network) => IpAddr::V6((network.to_bits() + TENTH).into()),
    };
    let usable = range.contains(&address) && address != range.broadcast();
    usable.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_and_the_first_family_stays_first() {
        let range = |word: &&str| word.parse::<IpNet>().expect("a range");
        let ip = |word: &&str| word.parse::<IpAddr>().expect("an address");
        let (v4, v6, small) = ("10.96.0.0/12", "fd00::/112", "10.0.0.0/29");
        let (tenth4, tenth6, other) = ("10.96.0.10", "fd00::a", "10.96.0.99");
        for (ranges, had, expected) in [
            (&[v4][..], &[][..], &[tenth4][..]),
            (&[v4, v6], &[], &[tenth4, tenth6]),
            (&[v6, v4], &[], &[tenth6, tenth4]),
            (&[v4], &[other], &[other]),
            (&[v4, v6], &[other], &[other, tenth6]),
            (&[v6, v4], &[other], &[other, tenth6]),
            (&[v6, v4], &[other, tenth6], &[other, tenth6]),
            (&[v6], &[other, tenth6], &[tenth6]),
            (&[v6], &[other], &[tenth6]),
            (&[small], &[], &[]),
        ] {
            let ranges: Vec<IpNet> = ranges.iter().map(range).collect();
            let had: Vec<IpAddr> = had.iter().map(ip).collect();
            let expected: Vec<IpAddr> = expected.iter().map(ip).collect();
            assert_eq!(wanted(&ranges, &had).1, expected, "{ranges:?} {had:?}");
        }
    }

    #[test]
    fn the_address_is_the_tenth_of_the_range_if_it_has_one() {
        for (range, address) in [
            ("10.96.0.0/12", Some("10.96.0.10")),
            ("10.0.0.0/28", Some("10.0.0.10")),
            ("10.0.0.0/29", None),
            ("fd00:10:96::/112", Some("fd00:10:96::a")),
            ("255.255.255.248/29", None),
        ] {
            let range: IpNet = range.parse().expect("a range");
            assert_eq!(tenth(&range), address.map(|word| word.parse().expect("an address")));
        }
    }
}
