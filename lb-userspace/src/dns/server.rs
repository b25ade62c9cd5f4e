//! The server: its sockets, the Service that leads to them, and the thread that answers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::clients::Clients;
use super::forward;
use super::listen::{Listener, Place, choose};
use super::metrics::{Dropped, Totals};
use super::respond::{Reply, Responder};
use super::{Transport, Zones, service, tcp, udp};
use crate::engine::Engine;
use crate::host::Inherited;
use crate::plan::Family;
use crate::serving::{Limit, on_own_thread};
use crate::source::Addresses;

/// Questions to upstream servers that one client, and all together, may have under way.
const ASKING: (usize, usize) = (128, 768);

/// How often is tried again what could not be opened.
const RETRY: Duration = Duration::from_secs(5);

/// Connections that one client, and all together, may have open.
const CONNECTIONS: (usize, usize) = (32, 512);

/// What the server needs to know at start.
#[derive(Debug)]
pub struct Config {
    /// Where questions come to; none is a node address and a free port, followed as addresses come
    /// and go.
    pub listen: Vec<SocketAddr>,
    /// Sockets that somebody keeps for this server, instead of `listen`.
    pub inherited: Inherited,
    /// Who may ask besides this node's workloads.
    pub allow: Vec<IpNet>,
    /// Where names elsewhere are asked for.
    pub forward: forward::Config,
    /// What names lead to.
    pub zones: Zones,
    /// Ranges of ClusterIPs: the server has one of each.
    pub service_cidrs: Vec<IpNet>,
    /// This node.
    pub node_name: String,
}

/// What all who answer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) responder: Arc<Responder>,
    pub(super) clients: Clients,
    pub(super) asking: Limit,
    pub(super) connections: Limit,
}

impl Shared {
    /// As [`Responder::respond`]. A fault in there costs the one request that met it.
    pub(super) fn respond(
        &self,
        packet: Vec<u8>,
        source: SocketAddr,
        transport: Transport,
        trusted: bool,
    ) -> Reply {
        let respond = || self.responder.respond(packet, source, transport, trusted);
        panic::catch_unwind(AssertUnwindSafe(respond)).unwrap_or_else(|_| {
            tracing::error!("a question from {source} met a fault in lb, and got no answer");
            self.responder.metrics.dropped(Dropped::Fault);
            Reply::None
        })
    }
}

/// `lb status` about names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The domain under which Services have names.
    pub domain: String,
    /// The ClusterIPs of the server that lead somewhere.
    pub cluster_ips: Vec<IpAddr>,
    /// Where they lead to.
    pub listeners: Vec<SocketAddr>,
    /// Who is asked for names elsewhere.
    pub elsewhere: forward::Status,
    /// Questions answered.
    pub answered: u64,
    /// Those of them that could not be: `SERVFAIL`.
    pub failed: u64,
    /// Those of them that were refused, most likely to strangers.
    pub refused: u64,
}

/// A view of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Monitor {
    responder: Arc<Responder>,
    listeners: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Monitor {
    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        let Totals { answered, failed, refused } = self.responder.metrics.totals();
        let listeners = self.listeners();
        let mut cluster_ips = self.responder.zones.server_addresses();
        cluster_ips.retain(|vip| listeners.iter().any(|at| at.is_ipv4() == vip.is_ipv4()));
        Status {
            domain: self.responder.zones.domain(),
            cluster_ips,
            listeners,
            elsewhere: self.responder.forwarder.status(),
            answered,
            failed,
            refused,
        }
    }

    fn listeners(&self) -> Vec<SocketAddr> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the server's counters part of what the agent shows.
    pub fn register(&self, registry: &mut Registry) {
        self.responder.metrics.register(registry);
    }
}

/// A DNS server whose sockets are open.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    monitor: Monitor,
    engine: Engine,
    service_cidrs: Vec<IpNet>,
    node_name: String,
    /// Whether the node's addresses decide where questions come to.
    follows: bool,
    /// A family has no listener yet, or the node's addresses are not known.
    lacks: bool,
    /// Not yet answered.
    fresh: Vec<Listener>,
    /// Answered.
    served: Vec<Served>,
    tasks: JoinSet<(SocketAddr, io::Result<Infallible>)>,
    addresses: Addresses,
}

/// A listener that is answered.
#[derive(Debug)]
struct Served {
    place: Place,
    tasks: [AbortHandle; 2],
}

impl Server {
    /// Opens the sockets and makes the Service lead to them.
    ///
    /// # Errors
    ///
    /// If a socket that was asked for cannot be opened.
    pub async fn start(config: Config, engine: Engine) -> Result<Self> {
        let addresses = Addresses::subscribe()?;
        let responder = Arc::new(Responder::new(config.zones, config.forward));
        let monitor = Monitor { responder: Arc::clone(&responder), listeners: Arc::default() };
        let shared = Shared {
            responder,
            clients: Clients::new(config.allow),
            asking: Limit::new(ASKING.0, ASKING.1),
            connections: Limit::new(CONNECTIONS.0, CONNECTIONS.1),
        };
        let mut fresh = Listener::inherited(config.inherited)?;
        for at in &config.listen {
            fresh.push(Listener::bind(*at).context("--dns-listen")?);
        }
        let mut server = Self {
            shared: Arc::new(shared),
            monitor,
            engine,
            service_cidrs: config.service_cidrs,
            node_name: config.node_name,
            follows: fresh.is_empty(),
            lacks: false,
            fresh,
            served: Vec::new(),
            tasks: JoinSet::new(),
            addresses,
        };
        let earlier = service::earlier_ports(&server.engine).await;
        let present = server.addresses.list()?;
        server.settle(&present, &earlier);
        for at in server.places().map(|place| place.at.ip()) {
            if !at.is_unspecified() && !at.is_loopback() && !present.contains(&at) {
                tracing::warn!("names: this node does not have the address {at} (yet)");
            }
        }
        server.announce(&present).await;
        let Status { domain, cluster_ips, listeners, .. } = server.monitor.status();
        tracing::info!("names under {domain} at {cluster_ips:?}, by way of {listeners:?}");
        Ok(server)
    }

    /// A view of it.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// Answers on a thread of its own until `stop` becomes true.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        on_own_thread("dns", move || self.work(stop)).await
    }

    async fn work(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        self.answer_fresh();
        loop {
            tokio::select! {
                // An error means that the sender is gone, which is a stop as well.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                changed = self.addresses.changed() => {
                    changed.context("following this node's addresses")?;
                }
                () = sleep(RETRY), if self.lacks => {}
                // One that was given up ends, too.
                Some(ended) = self.tasks.join_next() => match ended {
                    Err(error) if error.is_cancelled() => continue,
                    Err(error) => bail!("the task that answers for names failed: {error}"),
                    Ok((at, Err(error))) => bail!("questions can no longer be read at {at}: {error}"),
                    Ok((_, Ok(never))) => match never {},
                },
            }
            self.follow().await;
        }
    }

    /// The node's addresses have changed, or something could not be done the last time.
    async fn follow(&mut self) {
        let present = match self.addresses.list() {
            Ok(present) => present,
            Err(error) => {
                tracing::error!("names: {error:#}");
                self.lacks = true;
                return;
            }
        };
        let given_up = self.settle(&present, &[]);
        self.answer_fresh();
        self.announce(&present).await;
        for task in given_up.iter().flat_map(|served| &served.tasks) {
            task.abort();
        }
    }

    /// Opens a listener for each family of ClusterIPs, unless places were asked for: on the node
    /// address that it should be on, and on the port that it had, or an earlier agent. Returns those
    /// that are replaced, which are answered until clients are led to the others.
    fn settle(&mut self, present: &BTreeSet<IpAddr>, earlier: &[(Family, u16)]) -> Vec<Served> {
        self.lacks = false;
        let mut given_up = Vec::new();
        for family in self.families().into_iter().filter(|_| self.follows) {
            let current = self.served.iter().position(|it| Family::of(it.place.at.ip()) == family);
            let at = current.map(|current| self.served[current].place.at);
            // Without an address there is nothing to listen on until one comes.
            let Some(address) = choose(family, present, at.map(|at| at.ip())) else { continue };
            if at.is_some_and(|at| at.ip() == address) {
                continue;
            }
            let earlier = earlier.iter().find(|(its, _)| *its == family).map(|(_, port)| *port);
            match Listener::bind_free(address, at.map(|at| at.port()).or(earlier)) {
                Ok(listener) => {
                    self.fresh.push(listener);
                    given_up.extend(current.map(|current| self.served.remove(current)));
                }
                Err(error) => {
                    tracing::warn!("names: no socket can be opened: {error:#}; --dns-listen");
                    self.lacks = true;
                }
            }
        }
        given_up
    }

    /// Begins to answer what comes to sockets that were opened.
    fn answer_fresh(&mut self) {
        for listener in std::mem::take(&mut self.fresh) {
            let place = listener.place();
            let at = place.at;
            let udp = udp::serve(listener.udp, Arc::clone(&self.shared));
            let udp = self.tasks.spawn(async move { (at, udp.await) });
            let tcp = tcp::serve(listener.tcp, Arc::clone(&self.shared));
            let tcp = self.tasks.spawn(async move { (at, tcp.await) });
            self.served.push(Served { place, tasks: [udp, tcp] });
        }
    }

    /// Makes the Service lead to the listeners.
    async fn announce(&self, present: &BTreeSet<IpAddr>) {
        let before = self.monitor.listeners();
        let mut endpoints = BTreeSet::new();
        for place in self.places() {
            if !place.at.ip().is_unspecified() {
                endpoints.insert(SocketAddr::new(place.at.ip().to_canonical(), place.at.port()));
                continue;
            }
            for family in self.families().into_iter().filter(|it| place.families.contains(it)) {
                let current = before
                    .iter()
                    .find(|at| at.port() == place.at.port() && Family::of(at.ip()) == family);
                let address = choose(family, present, current.map(SocketAddr::ip));
                endpoints.extend(address.map(|it| SocketAddr::new(it, place.at.port())));
            }
        }
        let endpoints: Vec<SocketAddr> = endpoints.into_iter().collect();
        let (engine, ranges) = (&self.engine, &self.service_cidrs);
        let ours = service::announce(engine, ranges, &endpoints, &self.node_name).await;
        self.shared.responder.zones.set_server(ours.then(service::key).as_ref());
        let reaches =
            |all: &[SocketAddr], family| all.iter().any(|at| Family::of(at.ip()) == family);
        for family in self.families() {
            let news = before.is_empty() || reaches(&before, family);
            if news && !reaches(&endpoints, family) {
                tracing::warn!(
                    "names: nothing listens for IP{family:?}, and its ClusterIP is refused; the node \
                     has no address of it, or --dns-listen names none"
                );
            }
        }
        let own = endpoints.iter().copied().chain(self.places().map(|place| place.at));
        self.shared.responder.set_listeners(own.collect());
        *self.monitor.listeners.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let fresh = self.fresh.iter().map(Listener::place);
        fresh.chain(self.served.iter().map(|served| served.place.clone()))
    }

    /// The families of ClusterIPs.
    fn families(&self) -> Vec<Family> {
        self.service_cidrs.iter().map(|range| Family::of(range.addr())).collect()
    }
}
