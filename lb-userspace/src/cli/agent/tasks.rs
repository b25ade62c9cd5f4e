//! The agent's parts at work, and how they end.

use std::process;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::Done;
use crate::engine::Engine;

/// What runs beside the engine.
pub(super) struct Tasks {
    set: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { set: JoinSet::new(), stop: watch::Sender::new(false) }
    }

    /// Starts a part, which ends when what it is given becomes true.
    pub(super) fn spawn<F>(&mut self, part: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.set.spawn(part(self.stop.subscribe()));
    }
}

/// Runs until a signal or until a part fails; then stops the parts, and the engine last.
pub(super) async fn serve(engine: Engine, tasks: Tasks, signals: &mut Signals) -> Done {
    let Tasks { mut set, stop } = tasks;
    let result = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: finishing what is under way; programs and maps stay in the kernel");
            Ok(())
        }
        ended = set.join_next() => ended.map_or(Ok(()), |ended| ended?),
    };
    stop.send_replace(true);
    let orderly = async {
        while let Some(ended) = set.join_next().await {
            if let Err(error) = ended.map_err(Into::into).and_then(|result| result) {
                tracing::error!("{error:#}");
            }
        }
        engine.stop().await;
    };
    tokio::select! {
        () = orderly => {}
        name = signals.next() => {
            tracing::warn!("{name} again: leaving at once");
            process::exit(1);
        }
    }
    result.map(|()| true)
}

/// The signals that ask an agent to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
