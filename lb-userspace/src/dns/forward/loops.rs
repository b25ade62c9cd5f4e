//! Upstreams that lead back here, by whatever way: each is asked for a name that nobody can guess,
//! and the question must not arrive here. (CoreDNS' plugin `loop` does the same.)

use std::sync::{Arc, MutexGuard, Weak};

use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use super::Flags;
use super::upstream::Upstream;

/// What is known of the way back from an upstream.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The latest probe's name.
    probe: Option<Name>,
    /// Whether the latest probe came back.
    came_back: bool,
    /// Whether the upstream leads here: from the moment that a probe came back until one did not.
    loops: bool,
    /// Whether a task probes it.
    watched: bool,
}

/// Probes an upstream in the background, and again and again as long as it leads here. Outside of a
/// tokio runtime this does nothing.
pub(super) fn watch(upstream: &Arc<Upstream>) {
    let Ok(runtime) = Handle::try_current() else { return };
    if !std::mem::replace(&mut state(upstream).watched, true) {
        runtime.spawn(run(Arc::downgrade(upstream)));
    }
}

/// [`watch`], the first time that the upstream is used.
pub(super) fn watch_once(upstream: &Arc<Upstream>) {
    let is_new = state(upstream).probe.is_none();
    if is_new {
        watch(upstream);
    }
}

/// Whether this question is the probe that the upstream was asked.
pub(super) fn recognise(upstream: &Arc<Upstream>, query: &Query) -> bool {
    let mut state = state(upstream);
    if query.query_type() != RecordType::HINFO || state.probe.as_ref() != Some(query.name()) {
        return false;
    }
    state.came_back = true;
    if !std::mem::replace(&mut state.loops, true) {
        drop(state);
        warn!(
            "DNS upstream {} leads back to this server and is not used: change what it forwards to, \
             or --dns-upstream",
            upstream.address
        );
        // A probe that comes back late has no task any more.
        watch(upstream);
    }
    true
}

/// Whether the upstream leads here.
pub(super) fn is_loop(upstream: &Upstream) -> bool {
    state(upstream).loops
}

async fn run(upstream: Weak<Upstream>) {
    let mut pause = None;
    // An upstream that is no longer wanted is not kept by this.
    while let Some(upstream) = upstream.upgrade() {
        let pace = upstream.pace;
        // A probe that came back after its task had ended is not sent again at once.
        let is_due = pause.is_some() || !is_loop(&upstream);
        if is_due {
            probe(&upstream).await;
            if conclude(&upstream) {
                return;
            }
        }
        drop(upstream);
        let now = pause.unwrap_or(pace.probe_pause);
        sleep(now).await;
        pause = Some((now * 2).min(pace.longest_probe_pause));
    }
}

/// Asks the upstream for a new name, and waits until it has answered or should have. 122 bits are
/// random. There are two labels, since servers may keep names of one to themselves; and the top one
/// is no reserved one, which they may answer themselves.
async fn probe(upstream: &Arc<Upstream>) {
    let id = Uuid::new_v4().simple().to_string();
    let (host, domain) = id.split_at(id.len() / 2);
    let labels = [host.as_bytes(), domain.as_bytes()];
    let name = Name::from_labels(labels).expect("two labels of 16 letters and digits");
    {
        let mut state = state(upstream);
        state.probe = Some(name.clone());
        state.came_back = false;
    }
    // Whatever is answered: that it did not come back is what counts.
    let _answer =
        upstream.exchange(&Query::query(name, RecordType::HINFO), Flags::default(), true).await;
}

/// Draws the conclusion from a probe. True if there is nothing more to be watched.
fn conclude(upstream: &Arc<Upstream>) -> bool {
    let mut state = state(upstream);
    if state.loops && !state.came_back {
        info!("DNS upstream {} no longer leads back to this server", upstream.address);
    }
    state.loops = state.came_back;
    state.watched = state.loops;
    !state.loops
}

fn state(upstream: &Upstream) -> MutexGuard<'_, Watch> {
    upstream.watch.lock().expect("no panic while it is held")
}
