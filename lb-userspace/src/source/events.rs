//! inotify, gathered into batches: what may have changed since the last one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::file::is_manifest;
use super::folder::Dirty;

/// So long nothing may happen before a batch is complete …
const QUIET: Duration = Duration::from_millis(75);

/// … unless it has lasted so long.
const LONGEST: Duration = Duration::from_millis(500);

/// With more names than these a look at the whole folder is cheaper.
const MANY: usize = 4096;

/// Watches a folder, the folder above it, and the folders to which links lead.
pub(super) struct Events {
    folder: PathBuf,
    pending: Arc<Pending>,
    watcher: Option<INotifyWatcher>,
    linked: BTreeSet<PathBuf>,
}

#[derive(Default)]
struct Pending {
    batch: Mutex<Batch>,
    woken: Notify,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Batch {
    dirty: Dirty,
    /// The folder itself came, went, or was replaced: what is watched may be another one by now.
    rearm: bool,
    /// Written and not closed yet: what they hold is likely to be half of it.
    open: BTreeSet<PathBuf>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        !self.rearm && !self.dirty.all && self.dirty.paths.is_empty()
    }
}

impl Events {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, pending: Arc::default(), watcher: None, linked: BTreeSet::new() }
    }

    /// Begins to watch, anew if need be. Call it before the look at the folder that the events complete.
    pub(super) fn arm(&mut self) -> notify::Result<()> {
        self.watcher = None;
        let linked = std::mem::take(&mut self.linked);
        let pending = Arc::clone(&self.pending);
        let folder = self.folder.clone();
        let mut watcher = notify::recommended_watcher(move |event| pending.add(&folder, event))?;
        if let Some(parent) = self.folder.parent().filter(|parent| parent.is_dir()) {
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
        self.watcher = Some(watcher);
        self.watch_linked(linked);
        Ok(())
    }

    /// Watches these folders besides, and no others any more.
    pub(super) fn watch_linked(&mut self, wanted: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.linked.difference(&wanted) {
            // It may be gone already, and its watch with it.
            let _ = watcher.unwatch(folder);
        }
        let mut watched = BTreeSet::new();
        for folder in wanted {
            if self.linked.contains(&folder)
                || watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
            {
                watched.insert(folder);
            }
        }
        self.linked = watched;
    }

    /// The next batch, and whether the folder must be armed anew. Safe to cancel.
    pub(super) async fn next(&self) -> (Dirty, bool) {
        while self.pending.lock().is_empty() {
            self.pending.woken.notified().await;
        }
        let limit = Instant::now() + LONGEST;
        loop {
            let until = if self.pending.lock().open.is_empty() {
                limit.min(Instant::now() + QUIET)
            } else {
                limit
            };
            let quiet = timeout_at(until, self.pending.woken.notified()).await.is_err();
            if quiet || Instant::now() >= limit {
                break;
            }
        }
        let batch = std::mem::take(&mut *self.pending.lock());
        (batch.dirty, batch.rearm)
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, folder: &Path, event: notify::Result<Event>) {
        let mut batch = self.lock();
        let matters = match event {
            Ok(event) => batch.add(folder, &event),
            Err(error) => {
                tracing::debug!("inotify: {error}");
                batch.rearm = true;
                batch.dirty.all = true;
                true
            }
        };
        drop(batch);
        if matters {
            self.woken.notify_one();
        }
    }
}

impl Batch {
    /// Whether the event can mean that a manifest changed.
    fn add(&mut self, folder: &Path, event: &Event) -> bool {
        if event.need_rescan() {
            self.dirty.all = true;
            return true;
        }
        // Among the others are those that our own reading causes.
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
        {
            return false;
        }
        let mut matters = false;
        for path in &event.paths {
            matters |= self.add_path(folder, path, event.kind);
        }
        if self.dirty.paths.len() > MANY {
            self.dirty = Dirty::everything();
        }
        matters
    }

    fn add_path(&mut self, folder: &Path, path: &Path, kind: EventKind) -> bool {
        let content = matches!(kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)));
        if path.parent() == Some(folder) {
            if is_manifest(path) {
                self.dirty.paths.insert(path.to_owned());
                self.track_writer(path, kind);
                return true;
            }
            // A name that comes or goes may be the middle of a link: `a.yaml → ..data/a.yaml`.
            let link = !content && (path.is_symlink() || path.is_dir() || !path.exists());
            self.dirty.all |= link;
            link
        } else if path == folder || folder.parent() == Some(path) {
            self.rearm |= !content;
            self.dirty.all |= !content;
            !content
        } else {
            // Beside the folder, or in a folder that a link leads to.
            let linked = path.parent() != folder.parent();
            self.dirty.all |= linked;
            linked
        }
    }

    fn track_writer(&mut self, path: &Path, kind: EventKind) {
        if matches!(kind, EventKind::Modify(ModifyKind::Data(_))) {
            self.open.insert(path.to_owned());
        } else if !matches!(kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Metadata(_)))
        {
            self.open.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind, RenameMode};

    use super::*;

    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const OPENED: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));
    const MOVED: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));

    fn batch(events: &[(EventKind, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (kind, path) in events {
            batch.add(Path::new("/etc/lb"), &Event::new(*kind).add_path(path.into()));
        }
        batch
    }

    #[test]
    fn lost_events_lead_to_a_look_at_everything() {
        let mut batch = Batch::default();
        let event = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(batch.add(Path::new("/etc/lb"), &event));
        assert!(batch.dirty.all);
    }

    #[test]
    fn reading_and_strangers_files_start_nothing() {
        for (kind, path) in [
            (OPENED, "/etc/lb/a.yaml"),
            (WRITTEN, "/etc/lb/notes.txt"),
            (EventKind::Create(CreateKind::File), "/etc/hosts"),
        ] {
            assert!(batch(&[(kind, path)]).is_empty(), "{kind:?} {path}");
        }
    }

    #[test]
    fn a_file_is_open_from_its_first_write_until_it_is_closed_or_gone() {
        let path = "/etc/lb/a.yaml";
        assert_eq!(batch(&[(WRITTEN, path)]).open, [path.into()].into());
        for end in [CLOSED, MOVED, EventKind::Remove(RemoveKind::File)] {
            assert!(batch(&[(WRITTEN, path), (end, path)]).open.is_empty(), "{end:?}");
        }
    }

    #[test]
    fn a_moved_folder_is_armed_anew() {
        for path in ["/etc/lb", "/etc"] {
            let batch = batch(&[(MOVED, path)]);
            assert!(batch.rearm && batch.dirty.all, "{path}");
        }
    }
}
