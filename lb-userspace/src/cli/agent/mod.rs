//! `lb agent`: brings the parts together, and takes them apart in order.

mod cluster;
mod parse;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use lb_common::maglev;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Done;
use super::args::PlacesArgs;
use super::devices::DeviceArgs;
use super::dns::DnsArgs;
use super::flows::FlowArgs;
use crate::api::{self, RunDir};
use crate::datapath::{Size, Sizes};
use crate::engine::{Config, Engine};
use crate::health::{self, Checks};
use crate::host::{self, Inherited, Level, Lock, LockError, Places, PortRange, ReservedPorts};
use crate::observe::{self, Metrics, SyncMetrics};
use crate::plan::Algorithm;
use crate::source::kubernetes::Kubernetes;
use crate::store::Authority;
use crate::{datapath, dns, sockets, source};
use cluster::ClusterArgs;
pub(super) use parse::parse_range;
use parse::{
    listens_elsewhere, one_of_each_family, parse_cidr, parse_snat_ports, parse_table_size,
};

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
        default_value = "49152-65535",
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
    fn service_cidrs(&self) -> Vec<IpNet> {
        let usual = Vec::from([IpNet::V4(DEFAULT_SERVICE_CIDR)]);
        if self.service_cidr.is_empty() && !self.cluster.kubernetes {
            usual
        } else {
            self.service_cidr.clone()
        }
    }
}

pub(super) async fn run(args: AgentArgs) -> Done {
    // Before there is a second thread.
    let inherited = Inherited::take().context("sockets that were passed to the agent")?;
    let mut signals = Signals::catch()?;
    one_of_each_family(&args.service_cidr)?;
    let (authority, service_cidrs) = (args.authority(), args.service_cidrs());
    let snat_ports = args.devices.has_packet_path().then_some(args.snat_ports);
    if let Some(range) = snat_ports {
        listens_elsewhere(range, "--health-listen", args.cluster.health_listen().as_slice())?;
        listens_elsewhere(range, "--metrics-listen", args.cluster.metrics_listen().as_slice())?;
        listens_elsewhere(range, "--dns-listen", args.dns.listeners())?;
    }
    let sizes = Sizes::choose(args.map_size).map_err(|error| anyhow!("--map-size: {error}"))?;
    let sizes = sizes.with_maglev(args.maglev_table_size);
    let places = args.places.places()?;
    let exempt = exempt(&args.exempt_cgroup)?;
    preflight(&places)?;
    // What may fail does so before anything is changed.
    let node_name = args.node_name.unwrap_or_else(host::hostname);
    let (proxy_name, cidrs_are_given) =
        (args.service_proxy_name.as_ref(), !args.service_cidr.is_empty());
    let kubernetes = args.cluster.open(&node_name, proxy_name, cidrs_are_given).await?;
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
    let (checks, sync) = (Checks::default(), SyncMetrics::default());
    let (notify, notices) = mpsc::channel(NOTICES);
    let in_cluster = kubernetes.as_ref().map_or(0, Kubernetes::sources);
    let engine = Engine::start(Config {
        state_dir: places.state_dir.clone(),
        datapath: datapath::Config {
            bpffs: places.bpffs.clone(),
            cgroup: cgroup.clone(),
            service_cidrs: (authority == Authority::Agent || cidrs_are_given)
                .then(|| service_cidrs.clone()),
            exempt: exempt.iter().map(|path| source::look_exempt(path)).collect(),
            sizes,
            devices: devices.as_ref().map(source::Devices::list).transpose()?,
            tc_attach: args.devices.tc_attach,
            snat_ports,
            reserved_ports: ReservedPorts::new(&places.state_dir),
        },
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
        checks: checks.clone(),
        sources: manifests.len() + usize::from(dns.is_some()) + in_cluster,
        notices: kubernetes.is_some().then_some(notify),
        metrics: sync.clone(),
    })?;
    let dns = match dns {
        Some(config) => Some(dns::Server::start(config, engine.clone()).await?),
        None => None,
    };
    let metrics = Metrics::new(&sync, dns.as_ref().map(dns::Server::monitor).as_ref());
    let (stop, mut tasks) =
        start_tasks(&run_dir, &engine, manifests, exempt, addresses, dns, &metrics)?;
    if let Some(devices) = devices {
        tasks.spawn(devices.follow(engine.clone(), stop.subscribe()));
    }
    if let Some(kubernetes) = kubernetes {
        tasks.spawn(kubernetes.follow(engine.clone(), notices, stop.subscribe()));
    }
    tasks.spawn(health::run(checks.clone(), stop.subscribe()));
    if let Some(listener) = listeners.health {
        tasks.spawn(health::serve(listener, checks, sync, stop.subscribe()));
    }
    if let Some(listener) = listeners.metrics {
        tasks.spawn(observe::serve(listener, metrics, stop.subscribe()));
    }
    tracing::info!(
        "serving the processes of {}; socket {}",
        cgroup.display(),
        run_dir.socket().display()
    );
    serve(engine, stop, tasks, &mut signals).await
}

/// The folders that `--exempt-cgroup` means.
fn exempt(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    ensure!(
        paths.len() <= host::MAX_EXEMPT,
        "--exempt-cgroup: {} are given, {} are possible; name a cgroup above several of them",
        paths.len(),
        host::MAX_EXEMPT
    );
    paths.iter().map(|path| host::exempt_cgroup(path)).collect()
}

/// Stops before anything is changed if lb cannot work here.
fn preflight(places: &Places) -> Result<()> {
    let mut missing = Vec::new();
    for finding in host::check(places) {
        let consequence = finding.consequence.unwrap_or_default();
        match finding.level {
            Level::Ok => tracing::debug!("{}: {}", finding.subject, finding.found),
            Level::Warn => tracing::warn!("{}: {}: {consequence}", finding.subject, finding.found),
            Level::Fail => {
                missing.push(format!("{}: {}: {consequence}", finding.subject, finding.found));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{} (`lb check` tells more)", missing.join("; "))
}

/// The cgroup to serve, and the folder of pins for this process alone.
fn take_node(places: &Places) -> Result<(PathBuf, Lock)> {
    let cgroup = match &places.cgroup {
        Some(path) => host::validate_cgroup(path)?,
        None => host::find_cgroup()?.path,
    };
    host::ensure_bpffs(&places.bpffs, &places.run_dir)?;
    let lock = match host::lock_folder(&places.bpffs) {
        Ok(lock) => lock,
        Err(error @ LockError::Held { .. }) => bail!(
            "the pins in {} are {error}; stop that agent or choose another --bpffs",
            places.bpffs.display()
        ),
        Err(LockError::Io(error)) => {
            Err(error).with_context(|| format!("{} cannot be opened", places.bpffs.display()))?
        }
    };
    Ok((cgroup, lock))
}

type Tasks = JoinSet<Result<()>>;

fn start_tasks(
    run_dir: &RunDir,
    engine: &Engine,
    manifests: Vec<PathBuf>,
    exempt: Vec<PathBuf>,
    addresses: source::Addresses,
    dns: Option<dns::Server>,
    metrics: &Metrics,
) -> Result<(watch::Sender<bool>, Tasks)> {
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for folder in manifests {
        tasks.spawn(source::manifests(folder, engine.clone(), stopping.clone()));
    }
    if !exempt.is_empty() {
        tasks.spawn(source::exempt(exempt, engine.clone(), stopping.clone()));
    }
    tasks.spawn(addresses.follow(engine.clone(), stopping.clone()));
    let monitor = dns.as_ref().map(dns::Server::monitor);
    if let Some(dns) = dns {
        tasks.spawn(dns.run(stopping.clone()));
    }
    tasks.spawn(api::serve(run_dir.listen()?, engine.clone(), monitor, metrics.clone(), stopping));
    Ok((stop, tasks))
}

/// Runs until a signal or until a part fails; then stops the parts, and the engine last.
async fn serve(
    engine: Engine,
    stop: watch::Sender<bool>,
    mut tasks: Tasks,
    signals: &mut Signals,
) -> Done {
    let result = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: finishing what is under way; programs and maps stay in the kernel");
            Ok(())
        }
        ended = tasks.join_next() => ended.map_or(Ok(()), |ended| ended?),
    };
    stop.send_replace(true);
    let orderly = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended.map_err(Into::into).and_then(|result| result) {
                tracing::error!("{error:#}");
            }
        }
        engine.stop().await;
    };
    tokio::select! {
        () = orderly => {}
        name = signals.next() => {
            tracing::warn!("{name} again: leaving at once");
            process::exit(1);
        }
    }
    result.map(|()| true)
}

/// The signals that ask an agent to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
