//! What the agent's servers for strangers have in common.

mod limits;

use std::future::Future;

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

pub(crate) use limits::Limit;

/// Answers HTTP by `app` until `stop` becomes true.
///
/// # Errors
///
/// If the listener fails; `name` says whose.
pub(crate) async fn answer(
    name: &'static str,
    listener: TcpListener,
    app: Router,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served.context(name),
        // Nobody misses an answer under way. An error means that the sender is gone, which is a stop
        // as well.
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    }
}

/// Runs what `work` makes on a thread of its own, of this name: whatever else the agent does, those who
/// ask do not wait for it.
///
/// # Errors
///
/// If the thread cannot be started or panics, or the work fails.
pub(crate) async fn on_own_thread<F>(
    name: &'static str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let (report, ended) = oneshot::channel();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(work()));
        // Who no longer waits does not hear it.
        report.send(result).ok();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
    ended.await.with_context(|| format!("the thread {name} panicked"))?
}
