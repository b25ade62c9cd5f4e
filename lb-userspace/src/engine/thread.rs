//! The engine's thread: takes one command after another off the queue.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::cluster::Observed;
use super::core::Core;
use super::sink::Sink;
use crate::api::types::{Outcome, SourceStatus, Status, Submitted, WatchEvent};
use crate::datapath::Devices;
use crate::host::ExemptCgroup;
use crate::object::{Key, Kind};
use crate::sockets::{Cause, CloseReply, CloseRequest, DeadPeer};

/// How long objects of manifest files may stay off the disk once nothing else happens.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// A list, and what happens to it from then on.
pub(super) type Watched = (Vec<Arc<Value>>, broadcast::Receiver<Arc<WatchEvent>>);

/// What the handle asks; see [`super::Engine`]'s functions of the same names.
#[derive(Debug)]
pub(super) enum Command {
    Apply {
        objects: Vec<Submitted>,
        dry_run: bool,
        reply: oneshot::Sender<Vec<Outcome>>,
    },
    ReplaceFile {
        path: PathBuf,
        objects: Vec<Submitted>,
        problems: Vec<String>,
        reply: oneshot::Sender<Vec<Outcome>>,
    },
    Source {
        status: SourceStatus,
        reply: oneshot::Sender<()>,
    },
    /// Objects as the Kubernetes API has them.
    Observe {
        changes: Vec<Observed>,
        reply: oneshot::Sender<()>,
    },
    /// The Kubernetes API has listed all objects of a kind.
    Listed {
        kind: Kind,
        present: BTreeSet<Key>,
        reply: oneshot::Sender<()>,
    },
    ServiceCidrs {
        cidrs: Vec<IpNet>,
        reply: oneshot::Sender<()>,
    },
    NodeAddresses {
        addresses: BTreeSet<IpAddr>,
        reply: oneshot::Sender<()>,
    },
    Delete {
        keys: Vec<Key>,
        dry_run: bool,
        reply: oneshot::Sender<Vec<Outcome>>,
    },
    List {
        kind: Kind,
        namespace: Option<String>,
        name: Option<String>,
        reply: oneshot::Sender<Vec<Arc<Value>>>,
    },
    Watch {
        kind: Kind,
        reply: oneshot::Sender<Watched>,
    },
    Exempt {
        cgroups: Vec<ExemptCgroup>,
        reply: oneshot::Sender<()>,
    },
    Devices {
        devices: Devices,
        reply: oneshot::Sender<()>,
    },
    /// Looks for sockets to close, on another thread, which replies.
    Close {
        request: CloseRequest,
        reply: CloseReply,
    },
    /// Why sockets with these peers are to be closed, if they are.
    Judge {
        peers: Vec<DeadPeer>,
        close_tcp: bool,
        reply: oneshot::Sender<Vec<Option<Cause>>>,
    },
    Status {
        reply: oneshot::Sender<Status>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// A command on its way.
#[derive(Debug)]
pub(super) struct Queued {
    since: Instant,
    command: Command,
}

impl Queued {
    /// Sent now.
    pub(super) fn new(command: Command) -> Self {
        Self { since: Instant::now(), command }
    }
}

/// Starts the thread. `report` hears whether `start` succeeded.
pub(super) fn spawn<S: Sink>(
    start: impl FnOnce() -> anyhow::Result<Core<S>> + Send + 'static,
    report: std_mpsc::Sender<anyhow::Result<()>>,
    commands: mpsc::Receiver<Queued>,
) -> anyhow::Result<()> {
    let body = move || match start() {
        Ok(core) => {
            // The handle waits for this report, so it is there to hear it.
            report.send(Ok(())).ok();
            run(core, commands);
        }
        Err(error) => {
            report.send(Err(error)).ok();
        }
    };
    let guarded = move || {
        if std::panic::catch_unwind(AssertUnwindSafe(body)).is_err() {
            // The store may be half-way through a change: its file is not, so begin again from it.
            tracing::error!("the engine's thread panicked; the agent ends. Programs and maps stay");
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().name("engine".to_owned()).spawn(guarded)?;
    Ok(())
}

fn run<S: Sink>(mut core: Core<S>, mut commands: mpsc::Receiver<Queued>) {
    let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timer = timer.expect("a runtime with nothing but a clock");
    loop {
        let upkeep = core.upkeep();
        let flush = core.has_deferred().then_some(FLUSH_AFTER);
        let next = if let Some(patience) = upkeep.into_iter().chain(flush).min() {
            let wait = async { tokio::time::timeout(patience, commands.recv()).await };
            match timer.block_on(wait) {
                Ok(next) => next,
                Err(_) => {
                    core.flush();
                    continue;
                }
            }
        } else {
            commands.blocking_recv()
        };
        // No handle is left, or one said stop.
        let Some(Queued { since, command }) = next else { break };
        core.begin(since);
        let last = execute(&mut core, command);
        core.end();
        if let Some(last) = last {
            core.flush();
            drop(core);
            last.send(()).ok();
            return;
        }
    }
    core.flush();
}

/// Answers one command; returns the reply to [`Command::Stop`]. Who no longer waits for an answer
/// does not get one.
fn execute<S: Sink>(core: &mut Core<S>, command: Command) -> Option<oneshot::Sender<()>> {
    match command {
        Command::Apply { objects, dry_run, reply } => {
            reply.send(core.apply(objects, dry_run)).ok();
        }
        Command::ReplaceFile { path, objects, problems, reply } => {
            reply.send(core.replace_file(&path, objects, &problems)).ok();
        }
        Command::Source { status, reply } => {
            core.source(status);
            reply.send(()).ok();
        }
        Command::Observe { changes, reply } => {
            core.observe(changes);
            reply.send(()).ok();
        }
        Command::Listed { kind, present, reply } => {
            core.listed(kind, &present);
            reply.send(()).ok();
        }
        Command::ServiceCidrs { cidrs, reply } => {
            core.service_cidrs(&cidrs);
            reply.send(()).ok();
        }
        Command::NodeAddresses { addresses, reply } => {
            core.node_addresses(&addresses);
            reply.send(()).ok();
        }
        Command::Delete { keys, dry_run, reply } => {
            reply.send(core.delete(keys, dry_run)).ok();
        }
        Command::List { kind, namespace, name, reply } => {
            reply.send(core.list(kind, namespace.as_deref(), name.as_deref())).ok();
        }
        Command::Watch { kind, reply } => {
            reply.send(core.watch(kind)).ok();
        }
        Command::Exempt { cgroups, reply } => {
            core.exempt(cgroups);
            reply.send(()).ok();
        }
        Command::Devices { devices, reply } => {
            core.devices(devices);
            reply.send(()).ok();
        }
        Command::Close { request, reply } => core.close(request, reply),
        Command::Judge { peers, close_tcp, reply } => {
            reply.send(core.judge(&peers, close_tcp)).ok();
        }
        Command::Status { reply } => {
            reply.send(core.status()).ok();
        }
        Command::Stop { reply } => return Some(reply),
    }
    None
}
