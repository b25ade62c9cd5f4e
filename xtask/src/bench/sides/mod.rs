//! Sides: networks that are alike but for who leads clients to Services.
//!
//! ```text
//!   client ──────────────── node ──────────────── backend
//!   192.0.2.7     192.0.2.1      10.244.0.1   10.244.0.10…
//! ```
//!
//! Each is a network namespace. No route leads anywhere else, and each side has namespaces of its own, so that what is
//! attached to one burdens no other.

mod lb;
pub(super) mod nftables;
mod service;

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::load::Kind;
use crate::stage::agent::Agent;
use crate::stage::pod::Pod;
use crate::stage::process::{self, Process};
use crate::stage::{self, Stage};
pub(super) use service::{Service, endpoint};

/// The backend's processor.
pub(super) const SERVER_PROCESSOR: usize = 1;
/// Seconds before each measurement in which nothing is counted.
const WARM_UP: f64 = 0.3;
/// How long a side may take until the first visit succeeds.
const START: Duration = Duration::from_secs(10);

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// The node's address towards clients.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The node's address towards backends.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The backend's, beside those of endpoints.
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
/// The node's devices.
const TO_CLIENT: &str = "clients";
const TO_BACKEND: &str = "backends";
/// How many connections a network namespace tracks.
const TRACKED: &str = "net/netfilter/nf_conntrack_count";

/// Who leads clients to Services.
#[derive(Clone, Copy)]
pub(super) enum Balancer<'a> {
    /// lb's agent, this binary.
    Lb(&'a Path),
    /// nftables, with rules as kube-proxy's.
    Nftables,
    /// Nobody: clients know the endpoints.
    Nobody,
}

/// A network, its balancer, and the server of loads behind it. Fields are dropped in this order.
pub(super) struct Side {
    name: &'static str,
    works: Works,
    server: Process,
    client: Pod,
    node: Pod,
}

/// What is at work in the node.
enum Works {
    Lb(Agent),
    Nftables,
    Nothing,
}

impl Side {
    /// Builds the network and starts what belongs into it. One side of a stage may have lb.
    pub(super) fn set_up(
        stage: &Stage,
        name: &'static str,
        balancer: Balancer<'_>,
        services: &[Service],
    ) -> Result<Self> {
        let add = |role: &str, address| stage.add_namespace(&format!("{name}-{role}"), address);
        let client = add("client", CLIENT)?;
        let mut node = add("node", NODE)?;
        let backend = add("backend", BACKEND)?;
        stage::connect([(&node, TO_CLIENT, NODE), (&client, "eth0", CLIENT)])?;
        stage::connect([(&node, TO_BACKEND, GATEWAY), (&backend, "eth0", BACKEND)])?;
        for endpoint in services.iter().flat_map(|service| &service.endpoints) {
            backend.ip(&["address", "add", &format!("{}/24", endpoint.ip()), "dev", "eth0"])?;
        }
        client.ip(&["route", "add", "10.244.0.0/24", "via", &NODE.to_string()])?;
        backend.ip(&["route", "add", "192.0.2.0/24", "via", &GATEWAY.to_string()])?;
        node.set("net/ipv4/ip_forward", "1")?;
        // A client that connects over and over runs out of ports: those that are closed may be used again.
        client.set("net/ipv4/tcp_tw_reuse", "1")?;

        let works = match balancer {
            Balancer::Lb(binary) => {
                node.cgroup = Some(stage.add_cgroup("node")?);
                Works::Lb(lb::start(binary, stage, &node, services)?)
            }
            Balancer::Nftables => {
                let file = stage.folder.join(format!("{name}.nft"));
                nftables::apply(&file, &node, services)?;
                Works::Nftables
            }
            Balancer::Nobody => Works::Nothing,
        };
        let server = start_server(stage, &backend)?;
        Ok(Self { name, works, server, client, node })
    }

    /// Makes sure that this side does what it is there for, and its node nothing else: a visitor comes to an endpoint,
    /// as itself or as the node, the balancer has seen it, and connections are tracked only where that is its work.
    pub(super) fn check(&mut self, service: &Service) -> Result<()> {
        let before = self.flows()?;
        let seen = self.first_visit(service)?;
        let end = |name: &str| -> Result<SocketAddrV4> {
            let address = seen[name].as_str().context("an end without address")?;
            Ok(address.parse()?)
        };
        let stands_in = service.masquerade && !matches!(self.works, Works::Nothing);
        let visitor = if stands_in { GATEWAY } else { CLIENT };
        let (name, tracked) = (self.name, self.tracked()?);
        ensure!(service.endpoints.contains(&end("server")?), "{name}: no endpoint: {seen}");
        ensure!(*end("client")?.ip() == visitor, "{name}: the visitor should be {visitor}: {seen}");
        ensure!(seen["datagrams"] == 1, "{name}: one datagram was sent: {seen}");
        match self.works {
            Works::Lb(_) | Works::Nftables => {
                ensure!(self.flows()? > before, "{name}: the balancer has seen no visit");
            }
            Works::Nothing => {}
        }
        let tracks = matches!(self.works, Works::Nftables);
        ensure!((tracked > 0) == tracks, "{name}: the node tracks {tracked} connections");
        Ok(())
    }

    /// Sends a load to a Service and returns what its client saw.
    pub(super) fn load(&mut self, kind: Kind, service: &Service, seconds: f64) -> Result<Value> {
        self.server.check_running()?;
        let to = match self.works {
            Works::Lb(_) | Works::Nftables => service.frontend(),
            Works::Nothing => *service.endpoints.first().context("a Service without endpoints")?,
        };
        let mut command = ourselves()?;
        command.arg("load").arg(kind.name()).args(["--to", &to.to_string()]);
        command.args(["--seconds", &seconds.to_string(), "--warm-up", &WARM_UP.to_string()]);
        process::pin_alone(&mut command, processor(kind));
        self.client.place(&mut command)?;
        let seen = process::capture(&mut command).with_context(|| self.name)?;
        serde_json::from_str(&seen).with_context(|| format!("the load said {seen:?}"))
    }

    /// A visit as soon as there can be one.
    fn first_visit(&mut self, service: &Service) -> Result<Value> {
        let deadline = Instant::now() + START;
        loop {
            match self.load(Kind::Visit, service, 0.0) {
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => process::pause()?,
                seen => return seen,
            }
        }
    }

    /// How many flows the balancer has seen, as far as it remembers.
    fn flows(&self) -> Result<u64> {
        match &self.works {
            Works::Lb(agent) => lb::translated(agent),
            Works::Nftables => self.tracked(),
            Works::Nothing => Ok(0),
        }
    }

    fn tracked(&self) -> Result<u64> {
        self.node.get(TRACKED)?.parse().context("no number of connections")
    }
}

/// The processor of a load's client, which does the node's work, too, for what the client sends. Who waits for each answer
/// shares the backend's: on another, most of the time would be that of waking a processor, which varies.
fn processor(kind: Kind) -> usize {
    match kind {
        Kind::Datagrams | Kind::Stream => 0,
        Kind::Requests | Kind::Connections | Kind::Visit => SERVER_PROCESSOR,
    }
}

fn start_server(stage: &Stage, backend: &Pod) -> Result<Process> {
    let log = stage.folder.join(format!("{}.log", backend.name));
    let log = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut command = ourselves()?;
    command.args(["load-server", "--port", &service::PORT.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    process::pin_alone(&mut command, SERVER_PROCESSOR);
    backend.place(&mut command)?;
    Process::spawn(&mut command, "the server of loads")
}

fn ourselves() -> Result<Command> {
    Ok(Command::new(env::current_exe().context("which program is this?")?))
}
