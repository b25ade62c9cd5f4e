//! What is counted: questions by zone, type and code, and how long their answers took.

use std::time::Instant;

use hickory_server::proto::op::ResponseCode;
use hickory_server::server::Request;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Upper end of the first bucket of durations, in seconds; the last ends at 2 s.
const FASTEST: f64 = 8e-6;

/// Which names a question was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The cluster's domain.
    Cluster,
    /// Addresses of Services and endpoints.
    Reverse,
    /// Names elsewhere.
    Forward,
    /// It was refused before its name was looked at.
    Refused,
}

/// The counters of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    queries: Family<QueryLabels, Counter>,
    durations: Family<ZoneLabels, Histogram, fn() -> Histogram>,
    malformed: Counter,
    dropped: Family<DropLabels, Counter>,
    answered: Counter,
    failed: Counter,
    refused: Counter,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Its sender has too many in the queue.
    Flood,
    /// A connection, where its sender, or all together, have too many.
    Connections,
    /// It met a fault in this server.
    Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    zone: &'static str,
    r#type: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ZoneLabels {
    zone: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            queries: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(FASTEST, 4.0, 10))
            }),
            malformed: Counter::default(),
            dropped: Family::default(),
            answered: Counter::default(),
            failed: Counter::default(),
            refused: Counter::default(),
        }
    }
}

impl Metrics {
    /// Makes the counters part of what the agent shows.
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dns");
        registry.register("queries", "Questions answered", self.queries.clone());
        registry.register("malformed", "Requests that could not be read", self.malformed.clone());
        registry.register("dropped", "Requests without an answer", self.dropped.clone());
        registry.register_with_unit(
            "query_duration",
            "From a question's arrival to its answer",
            Unit::Seconds,
            self.durations.clone(),
        );
    }

    /// A request was answered, `since` when it arrived.
    pub(super) fn answered(
        &self,
        about: About,
        request: &Request,
        code: ResponseCode,
        since: Instant,
    ) {
        let zone = about.label();
        let asked = request.queries.queries().first();
        let r#type = asked.map_or("none", |query| query.query_type().into());
        self.queries.get_or_create(&QueryLabels { zone, r#type, code: label_of(code) }).inc();
        let durations = self.durations.get_or_create(&ZoneLabels { zone });
        durations.observe(since.elapsed().as_secs_f64());
        self.answered.inc();
        if code == ResponseCode::ServFail {
            self.failed.inc();
        } else if code == ResponseCode::Refused {
            self.refused.inc();
        }
    }

    /// A request could not be read.
    pub(super) fn malformed(&self) {
        self.malformed.inc();
    }

    /// Something got no answer.
    pub(super) fn dropped(&self, why: Dropped) {
        let reason = match why {
            Dropped::Flood => "flood",
            Dropped::Connections => "connections",
            Dropped::Fault => "fault",
        };
        self.dropped.get_or_create(&DropLabels { reason }).inc();
    }

    /// For `lb status`.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            answered: self.answered.get(),
            failed: self.failed.get(),
            refused: self.refused.get(),
        }
    }
}

/// How many questions were answered, and how many of them by `SERVFAIL` and by `REFUSED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
}

impl About {
    const fn label(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Reverse => "reverse",
            Self::Forward => "forward",
            Self::Refused => "refused",
        }
    }
}

/// Codes as they are written. There are few, whatever an upstream server sends.
fn label_of(code: ResponseCode) -> &'static str {
    if code == ResponseCode::NoError {
        "NOERROR"
    } else if code == ResponseCode::NXDomain {
        "NXDOMAIN"
    } else if code == ResponseCode::ServFail {
        "SERVFAIL"
    } else if code == ResponseCode::Refused {
        "REFUSED"
    } else if code == ResponseCode::FormErr {
        "FORMERR"
    } else if code == ResponseCode::NotImp {
        "NOTIMP"
    } else {
        "OTHER"
    }
}
