//! `lb agent`: brings the parts together, and takes them apart in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use ipnet::IpNet;
use lb_common::maglev;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Done;
use super::args::PlacesArgs;
use super::devices::DeviceArgs;
use super::dns::{DnsArgs, parse_socket_address};
use super::flows::FlowArgs;
use crate::api::{self, RunDir};
use crate::datapath::{Size, Sizes};
use crate::engine::{Config, Engine};
use crate::health::{self, Checks};
use crate::host::{self, Inherited, Level, Lock, LockError, Places, PortRange, ReservedPorts};
use crate::observe::{self, Metrics};
use crate::plan::Algorithm;
use crate::store::allocate::NODE_PORTS;
use crate::{datapath, dns, sockets, source};

#[derive(Args, Debug)]
pub(super) struct AgentArgs {
    /// Folder of manifests to serve and to watch; may be repeated
    #[arg(long, env = "LB_MANIFESTS", value_name = "DIR", value_delimiter = ':')]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    places: PlacesArgs,
    /// Ranges of ClusterIPs: one of IPv4, one of IPv6, or both
    #[arg(
        long,
        env = "LB_SERVICE_CIDR",
        default_value = "10.96.0.0/12",
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
    /// Where to serve metrics for Prometheus, besides the agent's socket (`/metrics` on both)
    #[arg(long, env = "LB_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = parse_socket_address)]
    metrics_listen: Option<SocketAddr>,
}

/// A range without host bits, small enough for an allocator.
fn parse_cidr(word: &str) -> Result<IpNet, String> {
    let cidr = parse_range(word)?;
    if matches!(cidr, IpNet::V6(v6) if v6.prefix_len() < 64) {
        return Err("an IPv6 range must be a /64 or smaller".to_owned());
    }
    Ok(cidr)
}

/// Ports that are nobody's else.
fn parse_snat_ports(word: &str) -> Result<PortRange, String> {
    /// Each endpoint takes so many connections at the least.
    const LEAST: u32 = 1_024;
    let range: PortRange = word.parse()?;
    let (first, last) = NODE_PORTS;
    let node_ports = PortRange::new(first, last).ok_or("no NodePorts")?;
    if range.overlaps(node_ports) {
        return Err(format!(
            "{range} has NodePorts, which are {node_ports}; a range above is usual"
        ));
    }
    if range.first() < 1_024 {
        return Err("ports below 1024 are those of well-known services".to_owned());
    }
    if range.count() < LEAST {
        let count = range.count();
        return Err(format!("{count} ports are too few; {LEAST} are the least, 16384 are usual"));
    }
    Ok(range)
}

/// A range without host bits.
pub(super) fn parse_range(word: &str) -> Result<IpNet, String> {
    let cidr: IpNet = word
        .parse()
        .map_err(|_| "not a range such as 10.96.0.0/12; one address is 10.9.0.1/32".to_owned())?;
    if cidr.trunc() != cidr {
        return Err(format!(
            "{cidr} has bits behind its prefix; {} is the range it lies in",
            cidr.trunc()
        ));
    }
    Ok(cidr)
}

/// One of the sizes that a Maglev table can have.
fn parse_table_size(word: &str) -> Result<u32, String> {
    let size = word.parse().map_err(|_| format!("{word} is no number of slots"))?;
    if maglev::is_usable(size) {
        return Ok(size);
    }
    let next = maglev::next_size(size).map_or_else(String::new, |next| format!(", such as {next}"));
    Err(format!("a table can have one of {:?} slots{next}", maglev::SIZES))
}

pub(super) async fn run(args: AgentArgs) -> Done {
    // Before there is a second thread.
    let inherited = Inherited::take().context("sockets that were passed to the agent")?;
    let mut signals = Signals::catch()?;
    one_of_each_family(&args.service_cidr)?;
    let snat_ports = args.devices.has_packet_path().then_some(args.snat_ports);
    if let Some(range) = snat_ports {
        listens_elsewhere(range, "--metrics-listen", args.metrics_listen.as_slice())?;
        listens_elsewhere(range, "--dns-listen", args.dns.listeners())?;
    }
    let sizes = Sizes::choose(args.map_size).map_err(|error| anyhow!("--map-size: {error}"))?;
    let sizes = sizes.with_maglev(args.maglev_table_size);
    let places = args.places.places()?;
    let exempt = exempt(&args.exempt_cgroup)?;
    preflight(&places)?;
    // What may fail does so before anything is changed.
    let metrics_listener = match args.metrics_listen {
        Some(at) => {
            let listener = TcpListener::bind(at).await;
            Some(listener.with_context(|| format!("--metrics-listen {at}"))?)
        }
        None => None,
    };
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
    let node_name = args.node_name.unwrap_or_else(host::hostname);
    let zones = args.dns.zones(&args.service_cidr);
    let dns = args.dns.server(&zones, inherited, &args.service_cidr, &node_name)?;
    let addresses = source::Addresses::subscribe()?;
    let devices = args.devices.subscribe()?;
    let checks = Checks::default();
    let engine = Engine::start(Config {
        state_dir: places.state_dir.clone(),
        datapath: datapath::Config {
            bpffs: places.bpffs.clone(),
            cgroup: cgroup.clone(),
            service_cidrs: args.service_cidr.clone(),
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
        service_cidrs: args.service_cidr,
        node_name,
        node_addresses: addresses.list()?,
        nodeport_addresses: args.nodeport_addresses,
        service_proxy_name: args.service_proxy_name,
        algorithm: args.lb_algorithm,
        zones,
        checks: checks.clone(),
        sources: manifests.len() + usize::from(dns.is_some()),
    })?;
    let dns = match dns {
        Some(config) => Some(dns::Server::start(config, engine.clone()).await?),
        None => None,
    };
    let metrics = Metrics::new(dns.as_ref().map(dns::Server::monitor).as_ref());
    let (stop, mut tasks) =
        start_tasks(&run_dir, &engine, manifests, exempt, addresses, dns, &metrics)?;
    if let Some(devices) = devices {
        tasks.spawn(devices.follow(engine.clone(), stop.subscribe()));
    }
    tasks.spawn(health::run(checks, stop.subscribe()));
    if let Some(listener) = metrics_listener {
        tasks.spawn(observe::serve(listener, metrics, stop.subscribe()));
    }
    tracing::info!(
        "serving the processes of {}; socket {}",
        cgroup.display(),
        run_dir.socket().display()
    );
    serve(engine, stop, tasks, &mut signals).await
}

/// Nobody can bind a port that packets get, the agent no more than others.
fn listens_elsewhere(snat_ports: PortRange, flag: &str, listeners: &[SocketAddr]) -> Result<()> {
    for at in listeners {
        ensure!(
            !snat_ports.contains(at.port()),
            "{flag} {at} has one of --snat-ports {snat_ports}; choose a port outside, or other --snat-ports"
        );
    }
    Ok(())
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

fn one_of_each_family(cidrs: &[IpNet]) -> Result<()> {
    let ipv4 = cidrs.iter().filter(|cidr| cidr.addr().is_ipv4()).count();
    let list: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
    ensure!(
        ipv4 <= 1 && cidrs.len() - ipv4 <= 1,
        "--service-cidr {} has more than one range of a family; give one of IPv4, one of IPv6, or both",
        list.join(",")
    );
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_of_one_family_are_refused_by_name() {
        let cidrs = |words: &[&str]| -> Vec<_> {
            words.iter().map(|word| parse_cidr(word).expect("a range")).collect()
        };
        assert!(one_of_each_family(&cidrs(&["10.96.0.0/12", "fd00::/112"])).is_ok());
        let error = one_of_each_family(&cidrs(&["10.96.0.0/12", "10.200.0.0/16"]))
            .expect_err("two of IPv4")
            .to_string();
        assert!(error.contains("10.200.0.0/16"), "{error}");
    }

    #[test]
    fn table_sizes_that_cannot_be_are_refused_with_one_that_can() {
        assert_eq!(parse_table_size("251"), Ok(251));
        for (word, remedy) in [
            ("many", "many is no number"),
            ("16384", "such as 32749"),
            ("0", "such as 251"),
            ("1000000", "one of [251"),
        ] {
            let error = parse_table_size(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }

    #[test]
    fn snat_ports_are_many_and_nobodys_else() {
        for word in ["61000-65535", "1024-29999", "32768-33791"] {
            assert!(parse_snat_ports(word).is_ok(), "{word}");
        }
        let at = |word: &str| [word.parse().expect("an address")];
        let range = parse_snat_ports("61000-65535").expect("the usual one");
        assert!(listens_elsewhere(range, "--dns-listen", &at("10.0.0.1:60999")).is_ok());
        let error = listens_elsewhere(range, "--dns-listen", &at("10.0.0.1:61000"));
        let error = error.expect_err("one of them").to_string();
        assert!(error.contains("--dns-listen 10.0.0.1:61000"), "{error}");
        for (word, remedy) in [
            ("49152", "such as 49152-65535"),
            ("32000-40000", "NodePorts, which are 30000-32767"),
            ("32768-33790", "1023 ports are too few; 1024"),
            ("1023-9999", "well-known"),
        ] {
            let error = parse_snat_ports(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }

    #[test]
    fn ranges_that_cannot_be_meant_are_refused_with_the_remedy() {
        assert!(parse_cidr("10.96.0.0/12").is_ok());
        assert!(parse_cidr("fd00:10:96::/112").is_ok());
        for (word, remedy) in [
            ("10.96.0.1/12", "10.96.0.0/12 is the range"),
            ("10.96.0.0", "such as 10.96.0.0/12"),
            ("fd00::/48", "/64"),
        ] {
            let error = parse_cidr(word).expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }
}
