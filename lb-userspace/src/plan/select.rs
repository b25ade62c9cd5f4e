//! Which endpoints traffic may go to: `CategorizeEndpoints` of Kubernetes' `pkg/proxy/topology.go`.
//!
//! kube-proxy builds lists of endpoints; here a [`Choice`] says what would be in the list, since
//! every endpoint keeps its place among the backends whether it is chosen or not.

use super::NodeView;
use crate::store::model::{Endpoint, Hints};

/// One of kube-proxy's two lists, as the rule that fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    state: State,
    place: Place,
}

/// Which conditions an endpoint must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// The last resort while nothing is ready: shutting down, but still answering (KEP-1669).
    ServingAndTerminating,
}

/// Where an endpoint must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// On this node, by `nodeName`: the `Local` traffic policies.
    Local,
    /// Hinted for this node.
    HintedNode,
    /// Hinted for this zone.
    HintedZone,
}

impl Choice {
    /// The list for traffic that may leave the node.
    ///
    /// Topology applies to ready endpoints only. It cannot empty the list, since it applies only
    /// if some ready endpoint is near.
    pub(super) fn cluster<'a>(
        endpoints: impl Iterator<Item = &'a Endpoint> + Clone,
        node: &NodeView,
    ) -> Self {
        let ready = endpoints.filter(|endpoint| endpoint.conditions.ready);
        if ready.clone().next().is_none() {
            return Self { state: State::ServingAndTerminating, place: Place::Anywhere };
        }
        Self { state: State::Ready, place: topology(&ready, node) }
    }

    /// The list for traffic that must stay on the node, with its own fallback.
    pub(super) fn local<'a>(
        endpoints: impl Iterator<Item = &'a Endpoint>,
        node: &NodeView,
    ) -> Self {
        let ready = endpoints.filter(|endpoint| endpoint.conditions.ready);
        let any_ready = ready.map(|endpoint| &endpoint.node).any(|name| *name == node.name);
        let state = if any_ready { State::Ready } else { State::ServingAndTerminating };
        Self { state, place: Place::Local }
    }

    /// Whether the list holds `endpoint`.
    pub(super) fn takes(self, endpoint: &Endpoint, node: &NodeView) -> bool {
        let conditions = endpoint.conditions;
        let in_state = match self.state {
            State::Ready => conditions.ready,
            State::ServingAndTerminating => conditions.serving && conditions.terminating,
        };
        let in_place = match self.place {
            Place::Anywhere => true,
            Place::Local => endpoint.node == node.name,
            Place::HintedNode => for_node(endpoint, node),
            Place::HintedZone => for_zone(endpoint, node),
        };
        in_state && in_place
    }
}

/// `topologyModeFromHints`: hints count only if every ready endpoint has one, so that traffic is
/// never squeezed onto the few that do; and only if one of them is meant for us.
fn topology<'a>(ready: &(impl Iterator<Item = &'a Endpoint> + Clone), node: &NodeView) -> Place {
    let all = |hinted: fn(&Hints) -> bool| {
        ready.clone().all(|endpoint| endpoint.hints.as_deref().is_some_and(hinted))
    };
    if all(|hints| !hints.nodes.is_empty()) && ready.clone().any(|e| for_node(e, node)) {
        Place::HintedNode
    } else if all(|hints| !hints.zones.is_empty()) && ready.clone().any(|e| for_zone(e, node)) {
        Place::HintedZone
    } else {
        Place::Anywhere
    }
}

fn for_node(endpoint: &Endpoint, node: &NodeView) -> bool {
    endpoint.hints.as_ref().is_some_and(|hints| hints.nodes.contains(&node.name))
}

fn for_zone(endpoint: &Endpoint, node: &NodeView) -> bool {
    match (&endpoint.hints, &node.zone) {
        (Some(hints), Some(zone)) => hints.zones.contains(zone),
        (Some(_) | None, _) => false,
    }
}
