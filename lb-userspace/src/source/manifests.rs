//! `--manifests DIR`: what its files hold is served, and follows them within a second.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use super::events::Events;
use super::folder::{Change, Dirty, Folder, is_absence};
use crate::api::types::{Outcome, SourceStatus, Verdict};
use crate::engine::Engine;

/// How often a folder is tried again that cannot be read. A folder that can be costs nothing while idle.
const RETRY: Duration = Duration::from_millis(500);

/// Serves a folder until `stop` becomes true.
pub async fn manifests(
    folder: PathBuf,
    engine: Engine,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut manifests = Manifests::new(folder);
    loop {
        let update = tokio::select! {
            update = manifests.next() => update?,
            // An error means that the sender is gone, which is a stop as well.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        for change in update.changes {
            submit(&engine, change).await;
        }
        if let Some(status) = update.status {
            engine.source(status).await;
        }
    }
}

async fn submit(engine: &Engine, Change { path, content }: Change) {
    for warning in &content.warnings {
        tracing::warn!("{warning}");
    }
    for problem in &content.problems {
        tracing::error!("{problem}");
    }
    let outcomes = engine.replace_file(path.clone(), content.objects, content.problems).await;
    report(&path, &outcomes);
}

fn report(path: &Path, outcomes: &[Outcome]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        for warning in &outcome.warnings {
            tracing::warn!("{warning}");
        }
        let verb = match &outcome.result {
            Verdict::Created => "created",
            Verdict::Configured => "configured",
            Verdict::Deleted => "deleted",
            Verdict::Unchanged | Verdict::NotFound => continue,
            Verdict::Refused(message) => {
                tracing::error!("{message}");
                continue;
            }
        };
        *counts.entry(verb).or_default() += 1;
        if let Some(key) = &outcome.key {
            tracing::debug!("{key} {verb}");
        }
    }
    if !counts.is_empty() {
        let counts: Vec<_> = counts.iter().map(|(verb, count)| format!("{count} {verb}")).collect();
        tracing::info!("{}: {}", path.display(), counts.join(", "));
    }
}

/// What became known about a folder at one time.
#[derive(Debug)]
struct Update {
    changes: Vec<Change>,
    /// Its state, if that is another than before.
    status: Option<SourceStatus>,
}

/// A watched folder.
struct Manifests {
    /// Taken while it is scanned on another thread.
    folder: Option<Folder>,
    path: PathBuf,
    events: Events,
    armed: bool,
    status: SourceStatus,
    begun: bool,
}

impl Manifests {
    fn new(path: PathBuf) -> Self {
        let status = SourceStatus {
            kind: "manifests".to_owned(),
            path: Some(path.clone()),
            synced: false,
            error: None,
        };
        Self {
            folder: Some(Folder::new(path.clone())),
            events: Events::new(path.clone()),
            path,
            armed: false,
            status,
            begun: false,
        }
    }

    /// Waits until something has changed; the first call does not wait. A cancelled call must not be
    /// followed by another.
    async fn next(&mut self) -> Result<Update> {
        let mut dirty = Dirty::everything();
        loop {
            if std::mem::replace(&mut self.begun, true) {
                dirty = self.wait().await;
            }
            let before = self.status.clone();
            let changes = self.look(dirty).await?;
            let status = (self.status != before).then(|| self.status.clone());
            if !changes.is_empty() || status.is_some() {
                return Ok(Update { changes, status });
            }
            dirty = Dirty::default();
        }
    }

    async fn wait(&mut self) -> Dirty {
        if self.status.error.is_some() {
            tokio::time::sleep(RETRY).await;
            self.armed = false;
            return Dirty::everything();
        }
        let (dirty, rearm) = self.events.next().await;
        self.armed &= !rearm;
        dirty
    }

    async fn look(&mut self, dirty: Dirty) -> Result<Vec<Change>> {
        let mut watching = Ok(());
        if !self.armed {
            watching = self.events.arm();
            self.armed = watching.is_ok();
        }
        let mut folder = self.folder.take().expect("a cancelled look is never followed by another");
        // Reading and decoding large files must not keep the API waiting.
        let (folder, result) = tokio::task::spawn_blocking(move || {
            let result = match folder.scan(&dirty) {
                // What was seen here is gone, as if file by file. What was never seen may come yet.
                Err(error) if is_absence(&error) => Ok((folder.vanished(), Some(error))),
                Err(error) => Err(error),
                Ok(changes) => Ok((changes, None)),
            };
            (folder, result)
        })
        .await?;
        self.events.watch_linked(folder.linked_folders());
        self.folder = Some(folder);
        let (changes, error) = match result {
            Ok((changes, None)) => {
                self.status.synced = true;
                (changes, watching.err().map(|error| format!("cannot be watched: {error}")))
            }
            Ok((changes, Some(_))) => (changes, Some("the folder does not exist".to_owned())),
            Err(error) => (Vec::new(), Some(unreadable(&error))),
        };
        self.set_error(error);
        Ok(changes)
    }

    /// Says once what is wrong, and once that it is well again.
    fn set_error(&mut self, error: Option<String>) {
        if self.status.error == error {
            return;
        }
        match &error {
            Some(error) => tracing::error!("manifests {}: {error}", self.path.display()),
            None => tracing::info!("manifests {}: readable again", self.path.display()),
        }
        self.status.error = error;
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("the folder cannot be read: {error}")
}

#[cfg(test)]
mod tests;
