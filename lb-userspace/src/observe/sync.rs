//! How long it takes until the kernel holds what objects say, by kube-proxy's names where the meaning is
//! the same (`pkg/proxy/metrics/metrics.go`), so that its dashboards go on working.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Set by the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SyncMetrics {
    duration: Histogram,
    programming: Histogram,
    last: Gauge<f64, AtomicU64>,
    queued: Gauge<f64, AtomicU64>,
    service_changes: Counter,
    endpoint_changes: Counter,
    healthz: Family<Answered, Counter>,
    livez: Family<Answered, Counter>,
}

/// The status of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    code: u16,
}

impl Default for SyncMetrics {
    fn default() -> Self {
        Self {
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            programming: Histogram::new(programming_buckets()),
            last: Gauge::default(),
            queued: Gauge::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            healthz: Family::default(),
            livez: Family::default(),
        }
    }
}

/// `NetworkProgrammingLatency`'s: fine below a second, coarse up to five minutes.
fn programming_buckets() -> impl Iterator<Item = f64> {
    let linear =
        |start: u32, step: u32, count: u32| (0..count).map(move |n| f64::from(start + step * n));
    let quarters = [0.25, 0.5].into_iter();
    quarters.chain(linear(1, 1, 59)).chain(linear(60, 5, 12)).chain(linear(120, 30, 7))
}

impl SyncMetrics {
    /// So many objects have changed.
    pub fn changed(&self, services: u64, endpoints: u64) {
        self.service_changes.inc_by(services);
        self.endpoint_changes.inc_by(endpoints);
    }

    /// The kernel was brought in step with changes, which took so long, and which arrived so long ago.
    pub fn served(&self, took: Duration, arrived: Duration) {
        self.queued.set(seconds(Timestamp::now()) - arrived.as_secs_f64());
        self.duration.observe(took.as_secs_f64());
        self.last.set(seconds(Timestamp::now()));
    }

    /// What happened to an endpoint then is in the kernel now.
    pub fn programmed(&self, triggered: Timestamp) {
        self.programming.observe((seconds(Timestamp::now()) - seconds(triggered)).max(0.0));
    }

    /// `/healthz` was answered.
    pub fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&Answered { code }).inc();
    }

    /// `/livez` was answered.
    pub fn livez(&self, code: u16) {
        self.livez.get_or_create(&Answered { code }).inc();
    }

    /// Shows them in `registry`, whose prefix is `kubeproxy`.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "sync_proxy_rules_duration_seconds",
            "How long it took to bring the kernel in step with changed objects",
            self.duration.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "From a change of a Pod or its readiness to the kernel, as far as endpoint slices say when it was",
            self.programming.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the kernel was brought in step the last time",
            self.last.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When the last change arrived",
            self.queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes",
            "Changes of Services",
            self.service_changes.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes",
            "Changes of endpoint slices",
            self.endpoint_changes.clone(),
        );
        registry.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_and_buckets_are_those_of_kube_proxy() {
        let metrics = SyncMetrics::default();
        metrics.changed(2, 3);
        metrics.served(Duration::from_millis(3), Duration::from_secs(1));
        metrics.programmed(Timestamp::now() - Duration::from_secs(90));
        metrics.healthz(503);
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("kubeproxy"));
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"85.0\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"300.0\"} 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 2",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 3",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        ] {
            assert!(text.contains(line), "{line} is in {text}");
        }
    }
}
