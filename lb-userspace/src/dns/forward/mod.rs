//! Questions outside of the cluster's zones: asked of upstream servers, and remembered.
//!
//! [`upstreams`] is who is asked, [`upstream`] one of them; [`loops`] finds those that lead back here;
//! [`answer`] is what comes of it, with the cache. The library (hickory) speaks the protocol with one
//! server: it repeats, goes over to TCP, and joins questions that are the same. Which server is asked, and
//! when the next, is decided here: the library's pool takes a refusal for an answer, and waits for a dead
//! server until the client has given up.

mod answer;
mod loops;
mod resolv_conf;
mod socket;
#[cfg(test)]
mod tests;
mod upstream;
mod upstreams;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::proto::op::{Query, ResponseCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

pub(super) use self::answer::Answer;
use self::answer::Cache;
pub use self::upstream::UpstreamState;
use self::upstream::{Failure, Upstream};
use self::upstreams::Upstreams;

/// No question takes longer: resolvers give up after 5 s (`RES_TIMEOUT` of glibc and musl).
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Questions that wait for upstreams at once. The library repeats a question twice, each time on a new
/// socket, so that one holds up to three descriptors for each upstream that it waits for.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

/// Where upstreams come from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The upstreams; none: those of `resolv_conf`.
    pub upstreams: Vec<SocketAddr>,
    /// A file in the format of `resolv.conf(5)`, looked at again as it changes.
    pub resolv_conf: PathBuf,
}

/// What a question asks for beside its name and type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Whether DNSSEC records are wanted (DO, RFC 3225).
    pub dnssec_ok: bool,
    /// Whether what does not validate is wanted, too (CD, RFC 4035).
    pub checking_disabled: bool,
}

/// How the forwarder does, for `lb status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Why no name outside of the cluster can be resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The upstreams in the order in which they were named.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// Its address and port.
    pub address: SocketAddr,
    /// How it does.
    #[serde(flatten)]
    pub state: UpstreamState,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// [`PATIENCE`].
    patience: Duration,
    /// How long an upstream is waited for before the next one is asked, too. The library repeats a
    /// question after a third of a second.
    head_start: Duration,
    /// How long an upstream that was silent comes after the others; doubled four times.
    spare: Duration,
    /// Between looks at `resolv.conf`.
    look: Duration,
    /// Between probes of an upstream that leads back here; doubled until the longest.
    probe_pause: Duration,
    longest_probe_pause: Duration,
}

impl Pace {
    const DEFAULT: Self = Self {
        patience: PATIENCE,
        head_start: Duration::from_millis(500),
        spare: Duration::from_secs(10),
        look: Duration::from_secs(1),
        probe_pause: Duration::from_secs(30),
        longest_probe_pause: Duration::from_secs(600),
    };
}

/// Asks upstreams. Without questions it does nothing, but for probes of upstreams that lead back here.
///
/// Its asynchronous methods and [`recognise`](Self::recognise) belong inside one tokio runtime.
pub(super) struct Forwarder {
    upstreams: Upstreams,
    cache: Cache,
    in_flight: Arc<Semaphore>,
    pace: Pace,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// One that has asked nothing yet.
    pub(super) fn new(config: Config) -> Self {
        Self::with_pace(config, Pace::DEFAULT)
    }

    fn with_pace(config: Config, pace: Pace) -> Self {
        Self {
            upstreams: Upstreams::new(config, pace),
            cache: Cache::new(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            pace,
        }
    }

    /// Sets the addresses that lead to this server, which are never asked: its listeners, and the
    /// frontends before them.
    pub(super) fn set_own(&self, own: Vec<SocketAddr>) {
        self.upstreams.set_own(own);
    }

    /// The answer, if it is known. Not for questions with [`Flags`], whose answers are others.
    pub(super) fn cached(&self, query: &Query) -> Option<Answer> {
        self.cache.get(query)
    }

    /// Asks upstreams, within [`PATIENCE`]. `SERVFAIL` is the answer when there is none.
    pub(super) async fn ask(&self, query: &Query, flags: Flags) -> Answer {
        let failed = Answer::empty(ResponseCode::ServFail);
        let Ok(permit) = self.in_flight.clone().try_acquire_owned() else { return failed };
        let question = Question { query: query.clone(), flags, _permit: permit };
        let asked = self.ask_each(self.upstreams.to_ask(), Arc::new(question));
        match timeout(self.pace.patience, asked).await {
            Ok(Ok(answer)) => {
                if flags == Flags::default() {
                    self.cache.insert(query, &answer);
                }
                answer
            }
            Ok(Err(code)) => Answer::empty(code),
            Err(_elapsed) => failed,
        }
    }

    /// Whether this question is one by which this server looks for loops: an upstream leads here. It
    /// needs no answer; `REFUSED` ends it soonest.
    pub(super) fn recognise(&self, query: &Query) -> bool {
        self.upstreams.recognise(query)
    }

    /// How it does.
    pub(super) fn status(&self) -> Status {
        self.upstreams.status()
    }

    /// The first answer. The next upstream is asked, too, when one has failed or all had time enough. If all fail, the code that the first of them gave.
    async fn ask_each(
        &self,
        upstreams: Vec<Arc<Upstream>>,
        question: Arc<Question>,
    ) -> Result<Answer, ResponseCode> {
        let mut waiting = upstreams.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut pending: Vec<Arc<Upstream>> = Vec::new();
        let mut given = None;
        loop {
            tokio::select! {
                Some((address, result)) = asked.next() => {
                    let place = pending.iter().position(|upstream| upstream.address == address);
                    let place = place.expect("it was asked");
                    match result {
                        Ok(answer) => {
                            pending[..place].iter().for_each(|earlier| earlier.overtaken());
                            return Ok(answer);
                        }
                        Err(Failure::Code(code)) => given = given.or(Some(code)),
                        Err(Failure::Useless(_) | Failure::Silent(_)) => {}
                    }
                    pending.remove(place);
                }
                () = sleep(self.pace.head_start), if !pending.is_empty() && waiting.len() > 0 => {}
                else => {}
            }
            match waiting.next() {
                Some(next) => {
                    pending.push(next.clone());
                    asked.push(ask_one(next, question.clone()));
                }
                None if pending.is_empty() => return Err(given.unwrap_or(ResponseCode::ServFail)),
                None => {}
            }
        }
    }
}

/// A question in flight; one of those that are allowed, until every upstream has answered it or has had
/// the time to.
struct Question {
    query: Query,
    flags: Flags,
    _permit: OwnedSemaphorePermit,
}

/// Asks one upstream, to the end, also when another has answered before: so it is known how it does.
async fn ask_one(
    upstream: Arc<Upstream>,
    question: Arc<Question>,
) -> (SocketAddr, Result<Answer, Failure>) {
    let address = upstream.address;
    let task = tokio::spawn(async move { upstream.ask(&question.query, question.flags).await });
    let result = task.await.unwrap_or_else(|error| Err(Failure::Silent(error.to_string())));
    (address, result)
}
