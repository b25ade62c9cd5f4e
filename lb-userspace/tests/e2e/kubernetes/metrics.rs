//! What the agent counts, as it tells Prometheus.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::Cluster;

impl Cluster {
    /// A counter, as it is.
    #[track_caller]
    pub(super) fn counter(&self, name: &str) -> u64 {
        let page = self.stage.node.run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:10249")?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page).map(|_| page)
        });
        let page = page.expect("the agent serves metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("there is no {name} in {page}"))
    }
}
