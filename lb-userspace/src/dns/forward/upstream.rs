//! One upstream server: how it is asked, and how it does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode,
};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};

use super::answer::{Answer, read};
use super::loops::{self, Watch};
use super::socket::Sockets;
use super::{Flags, MAX_IN_FLIGHT, Pace};

/// What is known of an upstream server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "detail")]
pub enum UpstreamState {
    /// It was not asked yet.
    Untried,
    /// It answered the latest question.
    Answers,
    /// It answered the latest question by this error, such as `Query Refused`, or by nonsense.
    Refuses(String),
    /// It did not answer the latest question, and why.
    Silent(String),
    /// Not used: it is this server.
    Own,
    /// Not used: what it is asked comes back to this server. It is tried again from time to time.
    Loops,
}

/// An upstream server. Questions that are the same and in flight at once are one to it.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) pace: Pace,
    pool: NameServerPool<Sockets>,
    health: Mutex<Health>,
    pub(super) watch: Mutex<Watch>,
}

#[derive(Debug)]
struct Health {
    state: UpstreamState,
    /// Silences in a row.
    silences: u32,
    /// Until then others are asked first.
    spared_until: Option<Instant>,
}

/// Why an upstream gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It answered that it cannot.
    Code(ResponseCode),
    /// It answered what nobody understands: the fault may be that of the name's owner.
    Useless(String),
    /// It did not answer.
    Silent(String),
}

impl Upstream {
    pub(super) fn new(address: SocketAddr, pace: Pace) -> Arc<Self> {
        let connections =
            [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
        let server = NameServerConfig::new(address.ip(), true, connections.into());
        let mut options = ResolverOpts::default();
        options.timeout = pace.patience;
        options.num_concurrent_reqs = 1;
        options.os_port_selection = true;
        // Whoever bounds questions has done so; a TCP connection takes what there is.
        options.max_active_requests = MAX_IN_FLIGHT;
        let tls = TlsConfig::new().expect("there is nothing in it");
        let context = Arc::new(PoolContext::new(options, tls));
        let sockets = Sockets::new(address, pace.patience);
        Arc::new(Self {
            address,
            pace,
            pool: NameServerPool::from_config([server], context, sockets),
            health: Mutex::new(Health {
                state: UpstreamState::Untried,
                silences: 0,
                spared_until: None,
            }),
            watch: Mutex::default(),
        })
    }

    /// Asks it, within patience. By UDP, some times over; by TCP where the answer is too large for that;
    /// without EDNS where it does not know it (RFC 6891, section 7).
    pub(super) async fn ask(
        self: &Arc<Self>,
        query: &Query,
        flags: Flags,
    ) -> Result<Answer, Failure> {
        let result = match timeout(self.pace.patience, self.try_edns(query, flags)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::Silent("no answer in time".to_owned())),
        };
        match &result {
            Ok(_) => self.note(UpstreamState::Answers),
            Err(Failure::Code(code)) => self.note(UpstreamState::Refuses(code.to_string())),
            Err(Failure::Useless(problem)) => self.note(UpstreamState::Refuses(problem.clone())),
            Err(Failure::Silent(problem)) => self.silent(problem),
        }
        result
    }

    async fn try_edns(&self, query: &Query, flags: Flags) -> Result<Answer, Failure> {
        match self.exchange(query, flags, true).await {
            Err(Failure::Code(ResponseCode::FormErr)) => self.exchange(query, flags, false).await,
            result => result,
        }
    }

    /// One question and its answer, of which nothing is noted.
    pub(super) async fn exchange(
        &self,
        query: &Query,
        flags: Flags,
        edns: bool,
    ) -> Result<Answer, Failure> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = edns;
        options.edns_set_dnssec_ok = flags.dnssec_ok;
        let mut request = DnsRequest::from_query(query.clone(), options);
        request.metadata.checking_disabled = flags.checking_disabled;
        let response = self.pool.send(request).first_answer().await;
        let answer = read(query, response.map(DnsResponse::into_message));
        match answer {
            Ok(answer)
                if !matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                Err(Failure::Code(answer.code))
            }
            Ok(answer) => Ok(answer),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(Failure::Code(code)),
            Err(NetError::Timeout) => Err(Failure::Silent("no answer in time".to_owned())),
            // The library's word for whatever error its sockets gave.
            Err(NetError::NoConnections) => Err(Failure::Silent("it cannot be reached".to_owned())),
            Err(error @ (NetError::Io(_) | NetError::Busy)) => {
                Err(Failure::Silent(error.to_string()))
            }
            Err(error) => Err(Failure::Useless(error.to_string())),
        }
    }

    /// Lets others go first until it has answered: one that was asked later did so sooner.
    pub(super) fn overtaken(&self) {
        self.health().spare(Instant::now(), self.pace);
    }

    /// Whether it is to be asked before others. One that was silent is so for one question at a time,
    /// less and less often.
    pub(super) fn comes_first(&self, now: Instant) -> bool {
        let mut health = self.health();
        match health.spared_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                health.spare(now, self.pace);
                true
            }
        }
    }

    /// What is known of it, of those that are used.
    pub(super) fn state(&self) -> UpstreamState {
        self.health().state.clone()
    }

    fn note(&self, state: UpstreamState) {
        let mut health = self.health();
        if let UpstreamState::Silent(_) = health.state {
            info!("DNS upstream {} answers again", self.address);
        }
        *health = Health { state, silences: 0, spared_until: None };
    }

    fn silent(self: &Arc<Self>, problem: &str) {
        let mut health = self.health();
        health.silences = health.silences.saturating_add(1);
        health.spare(Instant::now(), self.pace);
        let before =
            std::mem::replace(&mut health.state, UpstreamState::Silent(problem.to_owned()));
        drop(health);
        if !matches!(before, UpstreamState::Silent(_)) {
            warn!("DNS upstream {} does not answer: {problem}", self.address);
            // It may have begun to ask us: such questions wait for each other.
            loops::watch(self);
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no panic while it is held")
    }
}

impl Health {
    fn spare(&mut self, now: Instant, pace: Pace) {
        let doublings = self.silences.saturating_sub(1).min(4);
        self.spared_until = Some(now + pace.spare * 2_u32.pow(doublings));
    }
}
