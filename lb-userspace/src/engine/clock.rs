//! How long changes take, told to those who measure.

use std::time::Instant;

use jiff::Timestamp;

use crate::object::{Kind, Object};
use crate::observe::SyncMetrics;
use crate::store::Committed;

/// When what a slice shows happened, set by the endpoint slice controller (`EndpointsLastChangeTriggerTime`).
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Measures.
#[derive(Debug)]
pub(super) struct Clock {
    metrics: SyncMetrics,
    started: Timestamp,
    /// When the command was sent that is being done.
    sent: Instant,
}

impl Clock {
    pub(super) fn new(metrics: SyncMetrics) -> Self {
        Self { metrics, started: Timestamp::now(), sent: Instant::now() }
    }

    /// A command begins that was sent then.
    pub(super) const fn begin(&mut self, sent: Instant) {
        self.sent = sent;
    }

    /// Services are served anew since then.
    pub(super) fn served(&self, begun: Instant) {
        self.metrics.served(begun.elapsed(), self.sent.elapsed());
    }

    /// Objects have changed.
    pub(super) fn count(&self, committed: &Committed) {
        let count = |kinds: &[Kind]| {
            let events = committed.events.iter().filter(|event| kinds.contains(&event.key.kind));
            events.count() as u64
        };
        let services = count(&[Kind::Service]);
        let endpoints = count(&[Kind::EndpointSlice, Kind::Endpoints, Kind::Pod]);
        self.metrics.changed(services, endpoints);
    }

    /// When what a slice shows happened. As in kube-proxy, what was so before the start does not count
    /// (`pkg/proxy/endpointschangetracker.go`).
    pub(super) fn trigger(&self, object: &Object) -> Option<Timestamp> {
        let Object::EndpointSlice(slice) = object else { return None };
        let annotation = slice.metadata.annotations.as_ref()?.get(TRIGGER_ANNOTATION)?;
        annotation.parse().ok().filter(|at| *at > self.started)
    }

    /// What happened then is in the kernel.
    pub(super) fn programmed(&self, trigger: Timestamp) {
        self.metrics.programmed(trigger);
    }
}
