//! The set of upstreams: where it comes from, and who of it is asked.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::RecordType;
use tracing::{info, warn};

use super::resolv_conf::{self, Stamp};
use super::upstream::{Upstream, UpstreamState};
use super::{Config, Pace, Status, UpstreamStatus, loops};

/// All upstreams.
pub(super) struct Upstreams {
    config: Config,
    pace: Pace,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    list: Vec<Arc<Upstream>>,
    /// Addresses that are this server.
    own: BTreeSet<SocketAddr>,
    /// Those of the list that were warned of.
    told: BTreeSet<SocketAddr>,
    /// When the file was looked at, and what it was.
    looked: Option<(Instant, Stamp)>,
    /// Why the file gave no upstreams.
    problem: Option<String>,
}

impl Upstreams {
    pub(super) fn new(config: Config, pace: Pace) -> Self {
        let mut state = State::default();
        state.set(&config.upstreams, pace);
        Self { config, pace, state: Mutex::new(state) }
    }

    pub(super) fn set_own(&self, own: Vec<SocketAddr>) {
        self.state().own = own.into_iter().map(canonical).collect();
    }

    /// The upstreams to ask, in this order.
    pub(super) fn to_ask(&self) -> Vec<Arc<Upstream>> {
        let now = Instant::now();
        let mut state = self.state();
        self.follow(&mut state, now);
        state.tell_own();
        let used = state.list.iter().filter(|upstream| !state.is_own(upstream.address));
        let used: Vec<_> = used.cloned().collect();
        drop(state);
        used.iter().for_each(loops::watch_once);
        let used = used.into_iter().filter(|upstream| !loops::is_loop(upstream));
        let (mut first, spared): (Vec<_>, Vec<_>) =
            used.partition(|upstream| upstream.comes_first(now));
        first.extend(spared);
        first
    }

    /// Whether this question is a probe that one of them was asked.
    pub(super) fn recognise(&self, query: &Query) -> bool {
        // Nearly every question ends here.
        if query.query_type() != RecordType::HINFO {
            return false;
        }
        let list = self.state().list.clone();
        list.iter().any(|upstream| loops::recognise(upstream, query))
    }

    pub(super) fn status(&self) -> Status {
        let mut state = self.state();
        self.follow(&mut state, Instant::now());
        let upstreams: Vec<_> = state
            .list
            .iter()
            .map(|upstream| UpstreamStatus {
                address: upstream.address,
                state: if state.is_own(upstream.address) {
                    UpstreamState::Own
                } else if loops::is_loop(upstream) {
                    UpstreamState::Loops
                } else {
                    upstream.state()
                },
            })
            .collect();
        let unused = |upstream: &UpstreamStatus| {
            matches!(upstream.state, UpstreamState::Own | UpstreamState::Loops)
        };
        let all_unused = !upstreams.is_empty() && upstreams.iter().all(unused);
        let problem =
            all_unused.then(|| "every upstream is this server or leads back to it".into());
        Status { problem: state.problem.clone().or(problem), upstreams }
    }

    /// Reads `resolv.conf` again if it has changed.
    fn follow(&self, state: &mut State, now: Instant) {
        if !self.config.upstreams.is_empty() {
            return;
        }
        let before = match state.looked {
            Some((looked, _)) if now < looked + self.pace.look => return,
            Some((_, stamp)) => Some(stamp),
            None => None,
        };
        let path = &self.config.resolv_conf;
        // Before the file is read: what changes meanwhile is seen the next time.
        let stamp = Stamp::of(path);
        state.looked = Some((now, stamp));
        if before == Some(stamp) {
            return;
        }
        let (servers, problem) = match resolv_conf::read(path) {
            Ok(servers) if servers.is_empty() => {
                (servers, Some(format!("{} names no usable nameserver", path.display())))
            }
            Ok(servers) => (servers, None),
            Err(error) => (Vec::new(), Some(format!("{}: {error}", path.display()))),
        };
        if let Some(problem) = &problem {
            warn!("{problem}: names outside the cluster are not resolved (see --dns-upstream)");
        }
        state.problem = problem;
        state.set(&servers, self.pace);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }
}

impl State {
    /// Replaces the list. What is known of those that stay, stays.
    fn set(&mut self, addresses: &[SocketAddr], pace: Pace) {
        let mut seen = BTreeSet::new();
        let new = addresses.iter().filter(|address| seen.insert(**address));
        let known = |address| self.list.iter().find(|known| known.address == address);
        let list: Vec<_> = new
            .map(|address| {
                known(*address).cloned().unwrap_or_else(|| Upstream::new(*address, pace))
            })
            .collect();
        self.list = list;
        self.told.retain(|address| seen.contains(address));
        if !seen.is_empty() {
            let names: Vec<_> = self.list.iter().map(|known| known.address.to_string()).collect();
            info!("DNS upstreams: {}", names.join(", "));
        }
    }

    /// Warns of upstreams that are this server, once of each.
    fn tell_own(&mut self) {
        let own: Vec<_> = self.list.iter().map(|upstream| upstream.address).collect();
        for address in own {
            if self.is_own(address) && self.told.insert(address) {
                warn!(
                    "DNS upstream {address} is this server itself and is not used; \
                     --dns-upstream names others"
                );
            }
        }
    }

    /// Whether an address is this server's. A listener on every address is known to have the loopback
    /// ones; of others a probe tells.
    fn is_own(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        self.own.contains(&address)
            || address.ip().is_loopback()
                && self.own.iter().any(|own| {
                    own.ip().is_unspecified()
                        && own.port() == address.port()
                        && (own.is_ipv6() || address.is_ipv4())
                })
    }
}

/// One spelling of each address: IPv4 as such, no flow labels.
fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (ip @ IpAddr::V4(_), _) => SocketAddr::new(ip, address.port()),
        (IpAddr::V6(_), SocketAddr::V6(mut v6)) => {
            v6.set_flowinfo(0);
            v6.into()
        }
        (IpAddr::V6(_), SocketAddr::V4(_)) => address,
    }
}
