//! Manifests as a person writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A Service named `name` in the namespace `default`, its `spec` in YAML's flow form.
pub(crate) fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// Several documents as one file.
pub(crate) fn documents<S: AsRef<str>>(all: impl IntoIterator<Item = S>) -> String {
    let all: Vec<_> = all.into_iter().collect();
    all.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("---\n")
}

/// A pod with an address of each family.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// The value of its label `app`.
    pub(crate) app: String,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) ready: bool,
    /// The node that it is on, if that is not the agent's.
    pub(crate) node: Option<&'static str>,
    /// The ports its container names.
    pub(crate) named_ports: Vec<(&'static str, u16)>,
}

impl Pod {
    /// The pod whose addresses end in `number`, ready.
    pub(crate) fn new(name: &str, app: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            app: app.to_owned(),
            v4: Ipv4Addr::new(10, 244, 1, number),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(number)),
            ready: true,
            node: None,
            named_ports: Vec::new(),
        }
    }

    /// The pod whose addresses end in `number`, on the node `other`.
    pub(crate) fn elsewhere(name: &str, app: &str, number: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 244, 2, number),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 2, 0, 0, 0, u16::from(number)),
            node: Some("other"),
            ..Self::new(name, app, number)
        }
    }

    /// The pod's own address in the family of a ClusterIP.
    pub(crate) fn address(&self, like: IpAddr, port: u16) -> SocketAddr {
        match like {
            IpAddr::V4(_) => SocketAddr::new(self.v4.into(), port),
            IpAddr::V6(_) => SocketAddr::new(self.v6.into(), port),
        }
    }

    /// The Pod object.
    pub(crate) fn manifest(&self) -> String {
        let Self { name, app, v4, v6, .. } = self;
        let ready = if self.ready { "True" } else { "False" };
        let ports: Vec<_> = self
            .named_ports
            .iter()
            .map(|(name, port)| format!("{{name: {name}, containerPort: {port}}}"))
            .collect();
        let ports = ports.join(", ");
        let node = self.node.map(|node| format!("nodeName: {node}, ")).unwrap_or_default();
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec: {{{node}containers: [{{name: main, image: echo, ports: [{ports}]}}]}}
status:
  phase: Running
  podIP: {v4}
  podIPs: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]
  conditions: [{{type: Ready, status: \"{ready}\"}}]
"
        )
    }
}

/// An EndpointSlice of the Service `service` in the namespace `default`, with IPv4 endpoints.
pub(crate) fn endpoint_slice(name: &str, service: &str, port: &str, pods: &[&Pod]) -> String {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| format!("{{addresses: [{}], conditions: {{ready: {}}}}}", pod.v4, pod.ready))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{{port}}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}
