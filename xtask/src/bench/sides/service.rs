//! What sides serve.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::NODE;

/// Where endpoints listen.
pub(super) const PORT: u16 = 9_000;

/// A Service with a NodePort, for TCP and UDP alike.
pub(in crate::bench) struct Service {
    /// Its name.
    pub(in crate::bench) name: &'static str,
    /// The port at the node.
    pub(in crate::bench) node_port: u16,
    /// Where it leads.
    pub(in crate::bench) endpoints: Vec<SocketAddrV4>,
    /// Whether endpoints see the node in the client's place. lb does so for endpoints on other nodes.
    pub(in crate::bench) masquerade: bool,
}

impl Service {
    /// Where clients find it.
    pub(super) fn frontend(&self) -> SocketAddrV4 {
        SocketAddrV4::new(NODE, self.node_port)
    }

    /// The Service and its endpoints, for lb.
    pub(super) fn manifest(&self) -> String {
        let Self { name, node_port, .. } = self;
        let node = if self.masquerade { "other" } else { "node" };
        let mut text = format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  ports:
  - {{name: tcp, port: {PORT}, nodePort: {node_port}}}
  - {{name: udp, port: {PORT}, nodePort: {node_port}, protocol: UDP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: tcp, port: {PORT}}}, {{name: udp, port: {PORT}, protocol: UDP}}]
endpoints:
"
        );
        for endpoint in &self.endpoints {
            let address = endpoint.ip();
            text += &format!(
                "- {{addresses: [{address}], nodeName: {node}, conditions: {{ready: true}}}}\n"
            );
        }
        text
    }
}

/// An endpoint behind the node; each number has another address.
pub(in crate::bench) const fn endpoint(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, 10 + number), PORT)
}
