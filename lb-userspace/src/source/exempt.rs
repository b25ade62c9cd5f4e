//! `--exempt-cgroup DIR`: workloads that are left alone. Their cgroups come and go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use notify::{INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};

use crate::engine::Engine;
use crate::host::{ExemptCgroup, cgroup_id};

/// Pods come in bursts; one look serves all of a burst.
const QUIET: Duration = Duration::from_millis(20);

/// How often a folder is tried again that cannot be watched.
const RETRY: Duration = Duration::from_secs(1);

/// Tells the engine which of the cgroups exist, until `stop` becomes true.
pub async fn exempt(
    paths: Vec<PathBuf>,
    engine: Engine,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut known = None;
    loop {
        // Armed before the look that its events complete.
        let armed = Armed::new(&paths);
        let now: Vec<ExemptCgroup> = paths.iter().map(|path| look(path)).collect();
        if known.as_ref() != Some(&now) {
            engine.exempt(now.clone()).await;
            known = Some(now);
        }
        tokio::select! {
            () = armed.next() => {}
            // An error means that the sender is gone, which is a stop as well.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// What is at `path` at present.
pub fn look(path: &Path) -> ExemptCgroup {
    ExemptCgroup { path: path.to_owned(), id: cgroup_id(path).ok() }
}

/// Watches the folders in which the cgroups are, or will be.
struct Armed {
    woken: Arc<Notify>,
    /// `None` if watching is not possible at present.
    _watcher: Option<INotifyWatcher>,
    retry: bool,
}

impl Armed {
    fn new(paths: &[PathBuf]) -> Self {
        let woken = Arc::new(Notify::new());
        match watch(paths, &woken) {
            Ok(watcher) => Self { woken, _watcher: Some(watcher), retry: false },
            Err(error) => {
                tracing::warn!("exempt cgroups cannot be watched: {error}; trying again");
                Self { woken, _watcher: None, retry: true }
            }
        }
    }

    async fn next(&self) {
        if self.retry {
            tokio::time::sleep(RETRY).await;
            return;
        }
        self.woken.notified().await;
        tokio::time::sleep(QUIET).await;
    }
}

fn watch(paths: &[PathBuf], woken: &Arc<Notify>) -> notify::Result<INotifyWatcher> {
    let wake = Arc::clone(woken);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = event.is_ok_and(|event| !event.kind.is_access() && !event.kind.is_modify());
        if matters {
            wake.notify_one();
        }
    })?;
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| nearest_above(path)).collect();
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// The nearest existing folder above `path`: there it, or what leads to it, will come and go.
fn nearest_above(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_waited_for_where_it_will_appear() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("a/b/c");
        assert_eq!(nearest_above(&deep), Some(folder.path()));
        std::fs::create_dir_all(folder.path().join("a/b")).expect("made");
        assert_eq!(nearest_above(&deep), Some(folder.path().join("a/b").as_path()));
    }

    #[tokio::test]
    async fn a_folder_that_comes_or_goes_wakes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pod");
        let armed = Armed::new(std::slice::from_ref(&path));
        std::fs::create_dir(&path).expect("made");
        armed.next().await;
        let armed = Armed::new(std::slice::from_ref(&path));
        std::fs::remove_dir(&path).expect("removed");
        armed.next().await;
    }
}
