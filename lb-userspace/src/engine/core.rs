//! What the engine's thread does with each command.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;

use super::attempt::{Attempt, Heirs, Read, give_up};
use super::clock::Clock;
use super::closing::Closing;
use super::cluster::{FOLLOWS, Notice, Observed, Shortfalls};
use super::files::Files;
use super::sink::Sink;
use super::thread::Watched;
use super::watch::Watchers;
use super::{Config, describe};
use crate::api::types::{
    AgentStatus, Origin, Outcome, RefusedObject, SourceStatus, Status, Submitted, Verdict,
    WatchChange,
};
use crate::datapath::{self, Change, Devices, MapStatus, Refused};
use crate::dns::{Names, Zones};
use crate::flows;
use crate::health::{Checks, Healthy};
use crate::host::ExemptCgroup;
use crate::object::{Key, Kind};
use crate::plan::{HealthCheck, NodePortAddresses, ServicePortId};
use crate::sockets::{Cause, CloseReply, CloseRequest, DeadPeer, Facts};
use crate::store::{Authority, CommitError, Committed, Store, review};

/// Store, plan and datapath.
#[derive(Debug)]
pub(super) struct Core<S> {
    authority: Authority,
    store: Store,
    sink: S,
    agent: AgentStatus,
    /// What the sink was told to hold for each Service.
    planned: BTreeMap<Key, Vec<ServicePortId>>,
    /// `--nodeport-addresses`
    nodeport_addresses: Vec<IpNet>,
    /// What the sink cannot make at present, and why; it tries again with every call.
    unserved: BTreeMap<Key, BTreeMap<ServicePortId, String>>,
    files: Files,
    shortfalls: Shortfalls,
    clock: Clock,
    sources: BTreeMap<(String, Option<PathBuf>), SourceStatus>,
    /// How many sources have not synced yet.
    awaited: usize,
    watchers: Watchers,
    closing: Closing,
    /// `None` in the engine's own tests, which have no flows.
    flows: Option<flows::Handle>,
    zones: Zones,
    checks: Checks,
    /// As long as this lives, health checks say so.
    _healthy: Healthy,
}

impl<S: Sink> Core<S> {
    /// Brings the sink in step with the store, in one step.
    pub(super) fn new(
        config: &Config,
        store: Store,
        sink: S,
        closing: Closing,
        flows: Option<flows::Handle>,
    ) -> Self {
        let agent = AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: config.node_name.clone(),
            started: Timestamp::now().to_string(),
            kubernetes: config.authority == Authority::Cluster,
            service_cidrs: config.service_cidrs.iter().map(ToString::to_string).collect(),
            cluster_domain: config.zones.domain(),
            node_port_addresses: Vec::new(),
        };
        let mut core = Self {
            authority: config.authority,
            store,
            sink,
            agent,
            planned: BTreeMap::new(),
            nodeport_addresses: config.nodeport_addresses.clone(),
            unserved: BTreeMap::new(),
            files: Files::default(),
            shortfalls: Shortfalls::new(config.notices.clone()),
            clock: Clock::new(config.metrics.clone()),
            sources: BTreeMap::new(),
            awaited: config.sources,
            watchers: Watchers::default(),
            closing,
            flows,
            zones: config.zones.clone(),
            checks: config.checks.clone(),
            _healthy: config.checks.healthy(),
        };
        // In a cluster, what was so when an earlier agent ended counts while its maps serve.
        if core.sink.has_adopted() {
            core.checks.pulse().serving();
        }
        if core.authority == Authority::Agent || core.sink.has_adopted() {
            core.checks.set(core.health_checks(core.store.services()));
        }
        core.zones.set(core.names(core.store.services()));
        core.node_addresses(&config.node_addresses);
        // What files said last may not have reached the disk before the earlier agent was killed, but
        // it has reached the kernel: that is served on until the files have been read.
        if core.awaited == 0 || !core.sink.has_adopted() {
            core.serve_all();
        }
        if core.awaited == 0 {
            core.synced();
        }
        core
    }

    fn serve_all(&mut self) {
        let all = self.store.services().cloned().collect();
        self.serve(&all);
    }

    /// Objects as the Kubernetes API has them.
    pub(super) fn observe(&mut self, changes: Vec<Observed>) {
        let mut triggers = Vec::new();
        let mut batch = self.store.batch();
        for change in changes {
            match change {
                Observed::Is(object) => {
                    self.shortfalls.set(&object.key(), review(&object));
                    if batch.observe(&object) {
                        triggers.extend(self.clock.trigger(&object));
                    }
                }
                Observed::Gone(key) => {
                    self.shortfalls.forget(&key);
                    batch.forget(&key);
                }
            }
        }
        let result = batch.commit();
        self.finish(Vec::new(), result);
        self.checks.set_leaving(self.store.is_leaving());
        if !self.holds() {
            triggers.into_iter().for_each(|trigger| self.clock.programmed(trigger));
        }
    }

    /// A command begins that has waited since then.
    pub(super) fn begin(&mut self, since: Instant) {
        self.checks.pulse().begin(since);
        self.clock.begin(since);
    }

    /// It is done.
    pub(super) fn end(&mut self) {
        self.checks.pulse().end();
    }

    /// All objects of a kind have been observed since a list of it was begun: these.
    pub(super) fn listed(&mut self, kind: Kind, present: &BTreeSet<Key>) {
        let gone = self.store.keys(kind).filter(|key| !present.contains(*key));
        let gone = gone.cloned().map(Observed::Gone).collect();
        self.observe(gone);
    }

    pub(super) fn service_cidrs(&mut self, cidrs: &[IpNet]) {
        match self.sink.service_cidrs(cidrs) {
            Ok(()) => self.agent.service_cidrs = cidrs.iter().map(ToString::to_string).collect(),
            Err(error) => tracing::error!("service CIDRs: {error:#}; those before stay"),
        }
    }

    /// Whether nothing is served anew: until all objects of a cluster were observed once, Services
    /// would seem to have no endpoints.
    fn holds(&self) -> bool {
        self.authority == Authority::Cluster && self.awaited > 0
    }

    pub(super) fn apply(&mut self, objects: Vec<Submitted>, dry_run: bool) -> Vec<Outcome> {
        if self.authority == Authority::Cluster {
            let refused = || Outcome {
                key: None,
                result: Verdict::Refused(FOLLOWS.to_owned()),
                warnings: Vec::new(),
            };
            return objects.iter().map(|_| refused()).collect();
        }
        let mut batch = self.store.batch();
        let origin = Arc::new(Origin::Applied);
        let admit = |submitted: Submitted| Attempt::admit(&mut batch, &origin, submitted, false);
        let attempts: Vec<Attempt> = objects.into_iter().map(admit).collect();
        let result = if dry_run {
            drop(batch);
            Ok(Committed::default())
        } else {
            batch.commit()
        };
        self.finish(attempts.into_iter().map(Attempt::outcome).collect(), result)
    }

    pub(super) fn replace_file(
        &mut self,
        path: &Path,
        objects: Vec<Submitted>,
        problems: &[String],
    ) -> Vec<Outcome> {
        let origin = Arc::new(Origin::File(path.to_owned()));
        let (read, complete) = Read::all(objects, problems);
        let named: BTreeSet<Key> = read.iter().filter_map(Read::key).collect();
        // An unreadable document may be any of the objects that are missing now.
        let gone = self.store.of_file(path).filter(|key| complete && !named.contains(*key));
        let gone: Vec<Key> = gone.cloned().collect();

        let mut batch = self.store.batch();
        let heirs = give_up(&mut batch, &self.files, &gone, Some(path));
        batch.section();
        let attempts: Vec<Attempt> =
            read.into_iter().map(|read| read.admit(&mut batch, &origin, false)).collect();
        let result = batch.commit();
        if result.is_ok() {
            heirs.accept(&mut self.files);
        }
        let refused = attempts.iter().filter_map(|attempt| attempt.refused(result.as_ref().err()));
        self.files.set(path, problems, refused.collect());
        if self.awaited == 0 {
            self.files.drop_clean();
        }
        self.finish(attempts.into_iter().map(Attempt::outcome).collect(), result)
    }

    pub(super) fn source(&mut self, status: SourceStatus) {
        let key = (status.kind.clone(), status.path.clone());
        let was_synced = self.sources.get(&key).is_some_and(|source| source.synced);
        let now = SourceStatus { synced: status.synced || was_synced, ..status };
        let first_sync = now.synced && !was_synced;
        self.sources.insert(key, now);
        if first_sync && self.awaited > 0 {
            self.awaited -= 1;
            if self.awaited == 0 {
                self.synced();
            }
        }
    }

    pub(super) fn node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) {
        let selected = NodePortAddresses::select(addresses, &self.nodeport_addresses);
        let shown: Vec<IpAddr> = selected.iter().collect();
        if shown == self.agent.node_port_addresses {
            return;
        }
        self.agent.node_port_addresses = shown;
        self.checks.set_addresses(selected.listening(&self.nodeport_addresses));
        self.store.set_node_ports(selected);
        // What has not been planned so far will be planned with these.
        let planned = self.store.with_node_ports().filter(|key| self.planned.contains_key(*key));
        let affected = planned.cloned().collect();
        self.serve(&affected);
    }

    pub(super) fn delete(&mut self, keys: Vec<Key>, dry_run: bool) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(keys.len());
        let mut free = Vec::new();
        for key in keys {
            let result = match self.store.owner(&key) {
                None => Verdict::NotFound,
                Some(Origin::Applied) if free.contains(&key) => Verdict::NotFound,
                Some(Origin::Applied) => {
                    free.push(key.clone());
                    Verdict::Deleted
                }
                Some(Origin::Cluster) => Verdict::Refused(FOLLOWS.to_owned()),
                Some(origin @ Origin::File(_)) => Verdict::Refused(format!(
                    "{key} is defined by {}; remove it there, or it would come back",
                    describe(origin)
                )),
            };
            outcomes.push(Outcome { key: Some(key), result, warnings: Vec::new() });
        }
        if dry_run {
            return outcomes;
        }
        let mut batch = self.store.batch();
        let heirs = give_up(&mut batch, &self.files, &free, None);
        let result = batch.commit();
        if result.is_ok() {
            heirs.accept(&mut self.files);
        }
        self.finish(outcomes, result)
    }

    pub(super) fn list(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Vec<Arc<Value>> {
        self.store.list(kind, namespace, name)
    }

    pub(super) fn watch(&mut self, kind: Kind) -> Watched {
        let receiver = self.watchers.subscribe(kind, &self.store);
        (self.store.list(kind, None, None), receiver)
    }

    pub(super) fn status(&self) -> Status {
        let unserved = self.unserved.iter().flat_map(|(key, ports)| {
            let source = self.store.owner(key).map(describe).unwrap_or_default();
            distinct(ports).into_iter().map(move |message| RefusedObject {
                source: source.clone(),
                object: key.to_string(),
                namespace: key.namespace.to_string(),
                message: message.clone(),
            })
        });
        let mut datapath = self.sink.status();
        let sockets = self.closing.status(&mut datapath);
        let flows = self.flows(&mut datapath);
        Status {
            agent: self.agent.clone(),
            datapath,
            sockets,
            flows,
            dns: None,
            health_checks: self.checks.status(),
            sources: self.sources.values().cloned().collect(),
            refused: self
                .files
                .refused()
                .chain(self.shortfalls.refused())
                .chain(unserved)
                .collect(),
            objects: self.store.counts(),
        }
    }

    /// The flows' part of `lb status`; how full their map is goes to the datapath's.
    fn flows(&self, datapath: &mut datapath::Status) -> flows::Status {
        /// How programs count a connection for which there was no room.
        const FULL: &str = "flowsFull";
        let Some(handle) = &self.flows else { return flows::Status::default() };
        let status = handle.status();
        datapath.maps.push(MapStatus {
            name: "FLOWS".into(),
            used: status.entries,
            capacity: status.capacity,
        });
        let refused = datapath.counters.values().filter_map(|reasons| reasons.get(FULL)).sum();
        flows::Status { refused, ..status }
    }

    pub(super) fn exempt(&mut self, cgroups: Vec<ExemptCgroup>) {
        self.sink.exempt(cgroups);
    }

    pub(super) fn devices(&mut self, devices: Devices) {
        self.sink.devices(devices);
    }

    pub(super) fn close(&self, request: CloseRequest, reply: CloseReply) {
        self.closing.close(request, reply);
    }

    /// Why sockets with these dead peers are to be closed, in order. Until every source was heard,
    /// nobody knows what is gone.
    pub(super) fn judge(&mut self, peers: &[DeadPeer], close_tcp: bool) -> Vec<Option<Cause>> {
        if self.awaited > 0 {
            return vec![None; peers.len()];
        }
        let deleted_pods = self.closing.deleted_pods(peers, &self.store);
        let facts = Facts { unsettled: self.sink.unsettled(), deleted_pods, close_tcp };
        peers.iter().map(|peer| facts.judge(peer, self.sink.membership(peer))).collect()
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.store.has_deferred()
    }

    pub(super) fn flush(&mut self) {
        self.store.flush();
    }

    /// Does what is due in the sink; says in how long to call this again, if ever.
    pub(super) fn upkeep(&mut self) -> Option<Duration> {
        self.sink.upkeep()
    }

    /// Every source was heard once: what no file holds any more goes.
    fn synced(&mut self) {
        let gone: Vec<PathBuf> =
            self.store.files().filter(|path| !self.files.knows(path)).cloned().collect();
        let mut batch = self.store.batch();
        let mut heirs = Heirs::default();
        for path in gone {
            let keys: Vec<Key> = batch.store().of_file(&path).cloned().collect();
            heirs.append(give_up(&mut batch, &self.files, &keys, Some(&path)));
        }
        let result = batch.commit();
        if result.is_ok() {
            heirs.accept(&mut self.files);
        }
        self.files.drop_clean();
        self.finish(Vec::new(), result);
        if self.sink.has_adopted() || self.authority == Authority::Cluster {
            self.serve_all();
        }
        self.sink.prune();
        self.zones.set_complete();
        // What was in the way of something may be gone.
        self.serve(&BTreeSet::new());
        // An earlier agent may have been killed before it had closed what it should.
        self.closing.deaths();
        self.checks.pulse().serving();
    }

    /// Shows a batch to the kernel and to those who watch; a failed one to those who sent it.
    fn finish(
        &mut self,
        mut outcomes: Vec<Outcome>,
        result: Result<Committed, CommitError>,
    ) -> Vec<Outcome> {
        match result {
            Ok(committed) => {
                self.show(&committed);
                if frees_an_address(&committed) {
                    self.retry();
                }
                for outcome in &mut outcomes {
                    let messages = outcome.key.as_ref().and_then(|key| self.unserved.get(key));
                    let messages = messages.into_iter().flat_map(distinct).cloned();
                    outcome.warnings.extend(messages);
                }
            }
            Err(error) => {
                tracing::error!("{error}");
                for outcome in &mut outcomes {
                    refuse(&mut outcome.result, &error);
                }
            }
        }
        outcomes
    }

    fn show(&mut self, committed: &Committed) {
        self.serve(&committed.affected);
        self.clock.count(committed);
        self.closing.note(committed);
        self.watchers.publish(committed, &self.store);
    }

    /// Objects of files that broke a rule may obey it now that something went.
    fn retry(&mut self) {
        let candidates = self.files.invalid();
        if candidates.is_empty() {
            return;
        }
        let mut batch = self.store.batch();
        let mut accepted = Heirs::default();
        for (path, refused) in candidates {
            let origin = Arc::new(Origin::File(path.clone()));
            batch.section();
            let attempt = Attempt::admit(&mut batch, &origin, refused.submitted, false);
            accepted.note(path, attempt);
        }
        match batch.commit() {
            Ok(committed) => {
                accepted.accept(&mut self.files);
                self.show(&committed);
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// What the names of `services` lead to. In a cluster, others answer for them.
    fn names<'k>(&self, services: impl Iterator<Item = &'k Key>) -> Vec<(&'k Key, Option<Names>)> {
        let services = services.filter(|_| self.authority == Authority::Agent);
        services.map(|key| (key, self.store.names(key))).collect()
    }

    /// What load balancers elsewhere hear of `services`.
    fn health_checks<'k>(
        &self,
        services: impl Iterator<Item = &'k Key>,
    ) -> Vec<(&'k Key, Option<HealthCheck>)> {
        services.map(|key| (key, self.store.health_check(key))).collect()
    }

    /// Plans `services` and hands the plans over. Names that go do so before what they lead to, names
    /// that come or change follow it.
    fn serve(&mut self, services: &BTreeSet<Key>) {
        if self.holds() {
            return;
        }
        let begun = Instant::now();
        let (come, gone): (Vec<_>, Vec<_>) =
            self.names(services.iter()).into_iter().partition(|(_, names)| names.is_some());
        self.zones.set(gone);
        self.serve_plans(services);
        self.zones.set(come);
        self.checks.set(self.health_checks(services.iter()));
        if !services.is_empty() {
            self.clock.served(begun);
        }
    }

    fn serve_plans(&mut self, services: &BTreeSet<Key>) {
        let mut changes: Vec<Change> = Vec::with_capacity(services.len());
        for key in services {
            let wanted = self.store.plan(key).unwrap_or_default();
            let ids: Vec<ServicePortId> = wanted.iter().map(|(id, _)| id.clone()).collect();
            let before = self.planned.remove(key).unwrap_or_default();
            let gone = before.into_iter().filter(|id| !ids.contains(id));
            changes.extend(gone.map(|id| (id, None)));
            changes.extend(wanted.into_iter().map(|(id, wanted)| (id, Some(wanted))));
            if !ids.is_empty() {
                self.planned.insert(key.clone(), ids);
            }
        }
        if changes.is_empty() && self.unserved.is_empty() {
            return;
        }
        // What goes first makes room for what comes.
        changes.sort_by_key(|(_, wanted)| wanted.is_some());
        let mut unserved: BTreeMap<Key, BTreeMap<ServicePortId, String>> = BTreeMap::new();
        let refused = self.sink.apply(changes);
        if self.sink.take_deaths() {
            self.closing.deaths();
        }
        for Refused { id, message } in refused {
            let ports = unserved.entry(id.service.clone()).or_default();
            let all = ports.entry(id).or_default();
            if !all.is_empty() {
                all.push_str("; ");
            }
            all.push_str(&message);
        }
        let before = std::mem::replace(&mut self.unserved, unserved);
        for (key, ports) in &self.unserved {
            let known: BTreeSet<&String> =
                before.get(key).into_iter().flat_map(BTreeMap::values).collect();
            for message in distinct(ports).difference(&known) {
                tracing::error!("{key} in namespace {}: {message}", key.namespace);
                let (key, message) = (key.clone(), (*message).clone());
                self.shortfalls.tell(Notice { key, message, here: true });
            }
        }
    }
}

/// Whether a batch may have freed what a refused object waits for: only Services own addresses.
fn frees_an_address(committed: &Committed) -> bool {
    let mut services = committed.events.iter().filter(|event| event.key.kind == Kind::Service);
    services.any(|event| event.change != WatchChange::Added)
}

/// The parts of a Service often fail for one reason.
fn distinct(messages: &BTreeMap<ServicePortId, String>) -> BTreeSet<&String> {
    messages.values().collect()
}

/// A batch that failed changed nothing, so only refusals and what would not have changed stay.
fn refuse(verdict: &mut Verdict, error: &CommitError) {
    match verdict {
        Verdict::Created | Verdict::Configured | Verdict::Deleted => {
            *verdict = Verdict::Refused(error.to_string());
        }
        Verdict::Unchanged | Verdict::NotFound | Verdict::Refused(_) => {}
    }
}
