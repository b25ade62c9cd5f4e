//! The engine's part in closing sockets: which Pods were deleted, and orders to the thread that
//! looks at sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::Config;
use super::sink::Sink;
use super::thread::{Command, Queued};
use crate::api::types::WatchChange;
use crate::datapath;
use crate::object::Kind;
use crate::sockets::{self, CloseReply, CloseRequest, DeadPeer, Handle, Status};
use crate::store::{Committed, Store, pod_addresses};

/// How long the address of a deleted Pod is remembered: longer than the last sweep takes to come.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What is known of deleted Pods, and whom to tell.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// `None` in the engine's own tests, which have no sockets.
    sockets: Option<Handle>,
    limits: Vec<String>,
    deleted: BTreeMap<IpAddr, Instant>,
}

impl Closing {
    /// Starts the thread that looks at sockets, which asks `engine`.
    pub(super) fn start(
        config: &Config,
        sink: &mut impl Sink,
        engine: mpsc::WeakSender<Queued>,
    ) -> anyhow::Result<Self> {
        let Some(tables) = sink.take_sockets() else { return Ok(Self::default()) };
        let limits = sockets::limits().unwrap_or_else(|error| {
            vec![format!("sockets to backends that are gone cannot be listed: {error}")]
        });
        let judge = Box::new(move |peers, close_tcp| {
            let (reply, answer) = oneshot::channel();
            engine
                .upgrade()?
                .blocking_send(Queued::new(Command::Judge { peers, close_tcp, reply }))
                .ok()?;
            answer.blocking_recv().ok()
        });
        let handle = sockets::start(config.sockets, tables, judge);
        let handle = handle.context("no thread can be started that looks at sockets")?;
        Ok(Self { sockets: Some(handle), limits, ..Self::default() })
    }

    /// Backends have died: sockets may be connected to them.
    pub(super) fn deaths(&self) {
        self.sockets.iter().for_each(Handle::deaths);
    }

    /// Remembers where deleted Pods were. Their sockets may be connected to backends that died
    /// earlier.
    pub(super) fn note(&mut self, committed: &Committed) {
        let deleted = committed
            .events
            .iter()
            .filter(|event| event.key.kind == Kind::Pod && event.change == WatchChange::Deleted);
        let addresses: Vec<IpAddr> = deleted.flat_map(|pod| pod_addresses(&pod.body)).collect();
        if !addresses.is_empty() {
            self.forget();
            let now = Instant::now();
            self.deleted.extend(addresses.into_iter().map(|address| (address, now)));
            self.deaths();
        }
    }

    /// The addresses of dead peers whose Pods were deleted, and that no Pod has now.
    pub(super) fn deleted_pods(&mut self, peers: &[DeadPeer], store: &Store) -> BTreeSet<IpAddr> {
        self.forget();
        let asked: BTreeSet<IpAddr> = peers.iter().map(DeadPeer::address).collect();
        let mut deleted: BTreeSet<IpAddr> =
            self.deleted.keys().copied().filter(|ip| asked.contains(ip)).collect();
        if !deleted.is_empty() {
            for address in store.running_pods() {
                deleted.remove(&address);
            }
        }
        deleted
    }

    fn forget(&mut self) {
        self.deleted.retain(|_, at| at.elapsed() < REMEMBERED);
    }

    /// Has sockets closed at once; `reply` gets the report.
    pub(super) fn close(&self, request: CloseRequest, reply: CloseReply) {
        if let Some(handle) = &self.sockets {
            handle.close(request, reply);
        }
    }

    /// The sockets' part of `lb status`; their limits go to the datapath's. If few slots are free,
    /// those are freed whose sockets are gone.
    pub(super) fn status(&self, datapath: &mut datapath::Status) -> Status {
        datapath.limits.extend(self.limits.iter().cloned());
        let nearly_full = |map: &&datapath::MapStatus| map.used > map.capacity / 4 * 3;
        let origin = datapath.maps.iter().find(|map| map.name == "ORIGIN");
        if let Some(handle) = &self.sockets
            && origin.filter(nearly_full).is_some()
        {
            handle.full();
        }
        self.sockets.as_ref().map(Handle::status).unwrap_or_default()
    }
}
