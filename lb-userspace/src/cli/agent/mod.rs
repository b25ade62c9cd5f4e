//! `lb agent`: brings the parts together, and takes them apart in order.

mod cluster;
mod node;
mod parse;
mod tasks;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use lb_common::maglev;
use tokio::sync::mpsc;

use super::Done;
use super::args::PlacesArgs;
use super::devices::DeviceArgs;
use super::dns::DnsArgs;
use super::flows::FlowArgs;
use crate::api::{self, RunDir};
use crate::datapath::{Size, Sizes};
use crate::engine::{Config, Engine};
use crate::health::{self, Checks};
use crate::host::{self, Inherited, PortRange, ReservedPorts};
use crate::observe::{self, Metrics, SyncMetrics};
use crate::plan::Algorithm;
use crate::source::kubernetes::{self, Kubernetes};
use crate::store::Authority;
use crate::{datapath, dns, sockets, source};
use cluster::ClusterArgs;
use node::{exempt, preflight, take_node};
pub(super) use parse::parse_range;
use parse::{
    listens_elsewhere, one_of_each_family, parse_cidr, parse_snat_ports, parse_table_size,
};
use tasks::{Signals, Tasks, serve};

/// As kubeadm's.
const DEFAULT_SERVICE_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12);

/// What cannot be told to the cluster at once is only shown by `lb status`.
const NOTICES: usize = 256;

#[derive(Args, Debug)]
pub(super) struct AgentArgs {
    /// Folder of manifests to serve and to watch; may be repeated
    #[arg(long, env = "LB_MANIFESTS", value_name = "DIR", value_delimiter = ':')]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    places: PlacesArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Ranges of ClusterIPs: one of IPv4, one of IPv6, or both [default: 10.96.0.0/12; with --kubernetes,
    /// the cluster's ServiceCIDR objects]
    #[arg(
        long,
        env = "LB_SERVICE_CIDR",
        value_name = "CIDR[,CIDR]",
        value_parser = parse_cidr,
        value_delimiter = ','
    )]
    service_cidr: Vec<IpNet>,
    /// cgroup v2 folder whose processes are left alone, below the hierarchy's root unless absolute;
    /// may be repeated, and need not exist yet
    #[arg(long, env = "LB_EXEMPT_CGROUP", value_name = "DIR", value_delimiter = ':')]
    exempt_cgroup: Vec<PathBuf>,
    /// Entries of a map, for more or fewer Services than usual: FRONTENDS, SERVICES, RUNS, BACKENDS,
    /// AFFINITY, ORIGIN, FLOWS, SOURCE_RANGES; of MAGLEV, tables
    #[arg(
        long,
        env = "LB_MAP_SIZE",
        value_name = "NAME=ENTRIES[,NAME=ENTRIES]",
        value_delimiter = ','
    )]
    map_size: Vec<Size>,
    /// Name of this node, as Pods and EndpointSlices spell it [default: the host name]
    #[arg(long, env = "LB_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Close TCP connections, too, when their endpoint has left its Service for a second
    #[arg(long, env = "LB_CLOSE_TCP")]
    close_tcp: bool,
    /// Free the place of a socket that is missing from two listings this many seconds apart
    #[arg(
        long,
        env = "LB_RECLAIM_AFTER",
        default_value_t = 60,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    reclaim_after: u64,
    #[command(flatten)]
    flows: FlowArgs,
    /// Serve NodePorts only on addresses of the node in these ranges; a family without range is
    /// served on all, loopback included
    #[arg(
        long,
        env = "LB_NODEPORT_ADDRESSES",
        value_name = "CIDR[,CIDR]",
        value_parser = parse_range,
        value_delimiter = ','
    )]
    nodeport_addresses: Vec<IpNet>,
    /// Ports that packets to endpoints on other nodes get; local sockets are kept away from them
    #[arg(
        long,
        env = "LB_SNAT_PORTS",
        default_value = "61000-65535",
        value_name = "FIRST-LAST",
        value_parser = parse_snat_ports
    )]
    snat_ports: PortRange,
    /// Serve also Services whose label service.kubernetes.io/service-proxy-name has this value;
    /// those with another are left alone
    #[arg(long, env = "LB_SERVICE_PROXY_NAME", value_name = "NAME")]
    service_proxy_name: Option<String>,
    /// How new connections from outside are spread over endpoints: `maglev`, so that several nodes
    /// choose alike for an address that they share, or `random`; the annotation lb.algorithm of a
    /// Service goes before
    #[arg(long, env = "LB_ALGORITHM", default_value_t, value_name = "ALGORITHM")]
    lb_algorithm: Algorithm,
    /// Slots of each Maglev table, the same on every node: 251, 509, 1021, 2039, 4093, 8191, 16381,
    /// 32749, 65521 or 131071; 100 times as many as a Service has endpoints
    #[arg(
        long,
        env = "LB_MAGLEV_TABLE_SIZE",
        default_value_t = maglev::DEFAULT_SIZE,
        value_name = "SLOTS",
        value_parser = parse_table_size
    )]
    maglev_table_size: u32,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    dns: DnsArgs,
}

impl AgentArgs {
    /// Who decides what objects there are.
    fn authority(&self) -> Authority {
        if self.cluster.kubernetes { Authority::Cluster } else { Authority::Agent }
    }

    /// `--service-cidr`, or what is usual for an agent that allocates addresses.
    /// In a cluster, what it said last.
    fn service_cidrs(&self, state_dir: &Path) -> Vec<IpNet> {
        match self.authority() {
            _ if !self.service_cidr.is_empty() => self.service_cidr.clone(),
            Authority::Agent => Vec::from([IpNet::V4(DEFAULT_SERVICE_CIDR)]),
            Authority::Cluster => kubernetes::remembered(state_dir),
        }
    }
}

pub(super) async fn run(args: AgentArgs) -> Done {
    // Before there is a second thread.
    let inherited = Inherited::take().context("sockets that were passed to the agent")?;
    let mut signals = Signals::catch()?;
    one_of_each_family(&args.service_cidr)?;
    let places = args.places.places()?;
    let (authority, service_cidrs) = (args.authority(), args.service_cidrs(&places.state_dir));
    let snat_ports = args.devices.has_packet_path().then_some(args.snat_ports);
    if let Some(range) = snat_ports {
        listens_elsewhere(range, "--health-listen", args.cluster.health_listen().as_slice())?;
        listens_elsewhere(range, "--metrics-listen", args.cluster.metrics_listen().as_slice())?;
        listens_elsewhere(range, "--dns-listen", args.dns.listeners())?;
    }
    let sizes = Sizes::choose(args.map_size).map_err(|error| anyhow!("--map-size: {error}"))?;
    let sizes = sizes.with_maglev(args.maglev_table_size);
    let exempt = exempt(&args.exempt_cgroup)?;
    preflight(&places)?;
    // What may fail does so before anything is changed.
    let node_name = args.node_name.unwrap_or_else(host::hostname);
    let (proxy_name, cidrs_are_given) =
        (args.service_proxy_name.as_ref(), !args.service_cidr.is_empty());
    let cluster =
        args.cluster.open(&places.state_dir, &node_name, proxy_name, cidrs_are_given).await?;
    let listeners = args.cluster.listen().await?;
    let run_dir = RunDir::claim(&places.run_dir)?;
    let (cgroup, _pins) = take_node(&places)?;
    if let Some(path) = exempt.iter().find(|path| cgroup.starts_with(path)) {
        bail!(
            "--exempt-cgroup {} holds all of --cgroup {}: nobody would be served",
            path.display(),
            cgroup.display()
        );
    }
    host::allow_locked_memory()?;
    host::allow_open_files();
    let manifests =
        args.manifests.iter().map(std::path::absolute).collect::<std::io::Result<Vec<_>>>()?;
    let zones = args.dns.zones(&service_cidrs);
    let dns = match authority {
        Authority::Agent => args.dns.server(&zones, inherited, &service_cidrs, &node_name)?,
        // A cluster has a DNS server of its own.
        Authority::Cluster => None,
    };
    let addresses = source::Addresses::subscribe()?;
    let devices = args.devices.subscribe()?;
    let (notify, notices) = mpsc::channel(NOTICES);
    let in_cluster = cluster.as_ref().map_or(0, Kubernetes::sources);
    let config = Config {
        datapath: datapath::Config {
            bpffs: places.bpffs.clone(),
            cgroup: cgroup.clone(),
            service_cidrs: service_cidrs.clone(),
            exempt: exempt.iter().map(|path| source::look_exempt(path)).collect(),
            sizes,
            devices: devices.as_ref().map(source::Devices::list).transpose()?,
            tc_attach: args.devices.tc_attach,
            snat_ports,
            reserved_ports: ReservedPorts::new(&places.state_dir),
        },
        state_dir: places.state_dir,
        sockets: sockets::Config {
            close_tcp: args.close_tcp,
            reclaim_after: Duration::from_secs(args.reclaim_after),
        },
        flows: args.flows.lifetimes(),
        authority,
        service_cidrs,
        node_name,
        node_addresses: addresses.list()?,
        nodeport_addresses: args.nodeport_addresses,
        service_proxy_name: args.service_proxy_name,
        algorithm: args.lb_algorithm,
        zones,
        checks: Checks::default(),
        sources: manifests.len() + usize::from(dns.is_some()) + in_cluster,
        notices: cluster.is_some().then_some(notify),
        metrics: SyncMetrics::default(),
    };
    let (checks, sync) = (config.checks.clone(), config.metrics.clone());
    let engine = Engine::start(config)?;
    let dns = match dns {
        Some(config) => Some(dns::Server::start(config, engine.clone()).await?),
        None => None,
    };
    let names = dns.as_ref().map(dns::Server::monitor);
    let metrics = Metrics::new(&sync, names.as_ref());
    let (socket, handle) = (run_dir.listen()?, || engine.clone());
    let mut tasks = Tasks::new();
    for folder in manifests {
        tasks.spawn(|stop| source::manifests(folder, handle(), stop));
    }
    if let Some(cluster) = cluster {
        tasks.spawn(|stop| cluster.follow(handle(), notices, stop));
    }
    if !exempt.is_empty() {
        tasks.spawn(|stop| source::exempt(exempt, handle(), stop));
    }
    tasks.spawn(|stop| addresses.follow(handle(), stop));
    if let Some(devices) = devices {
        tasks.spawn(|stop| devices.follow(handle(), stop));
    }
    if let Some(dns) = dns {
        tasks.spawn(|stop| dns.run(stop));
    }
    tasks.spawn(|stop| health::run(checks.clone(), stop));
    if let Some(listener) = listeners.health {
        tasks.spawn(|stop| health::serve(listener, checks, sync, stop));
    }
    if let Some(listener) = listeners.metrics {
        tasks.spawn(|stop| observe::serve(listener, metrics.clone(), stop));
    }
    tasks.spawn(|stop| api::serve(socket, handle(), names, metrics, stop));
    tracing::info!(
        "serving the processes of {}; socket {}",
        cgroup.display(),
        run_dir.socket().display()
    );
    serve(engine, tasks, &mut signals).await
}
