//! The embedded store: one redb file that holds every admitted object, whole.
//!
//! What must survive a crash (objects that came by `lb apply`, and every allocation) is committed
//! at once. Objects that a manifest file holds anyway may wait in [`Persist::defer`]'s memory, so
//! that the kernel does not wait for the disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};

use super::error::{CommitError, OpenError};
use crate::api::types::Origin;
use crate::object::{Key, Kind};

/// (kind, namespace, name) → (origin, object as JSON).
type Columns = (u8, &'static str, &'static str);
type Row = (&'static [u8], &'static [u8]);
const OBJECTS: TableDefinition<'static, Columns, Row> = TableDefinition::new("objects");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const VERSION_KEY: &str = "resourceVersion";

/// Raised when an older agent could no longer read what this one writes.
const FORMAT: u64 = 1;
/// What the agent alone knows.
pub(crate) const OWN_FILE: &str = "lb.redb";
/// A copy of what the Kubernetes API knows.
pub(crate) const CLUSTER_FILE: &str = "kubernetes.redb";

/// redb's own default is 1 GiB. Objects are read only when somebody looks at them.
const CACHE_BYTES: usize = 4 << 20;

/// Deferred objects are written out when they reach this size.
const DEFERRED_BYTES: usize = 4 << 20;

/// Opens a file as redb's storage: [`on_file`], or in tests a disk that fails.
pub(super) type Storage = fn(&Builder, File) -> Result<Database, redb::DatabaseError>;

/// A file as it is.
pub(super) fn on_file(builder: &Builder, file: File) -> Result<Database, redb::DatabaseError> {
    builder.create_with_backend(FileBackend::new(file)?)
}

/// One object as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Who brought it.
    pub(super) origin: Origin,
    /// The object as JSON.
    pub(super) body: Bytes,
}

/// A write: the object, or `None` for its removal.
pub(super) type Write = (Key, Option<Record>);

/// The open file.
#[derive(Debug)]
pub(super) struct Persist {
    path: PathBuf,
    storage: Storage,
    /// `None` after a failure, until it could be opened again.
    database: Option<Database>,
    deferred: BTreeMap<Key, Option<Record>>,
    deferred_bytes: usize,
    version: u64,
    /// Held as long as this lives: one agent for each folder.
    _lock: OwnedFd,
}

impl Persist {
    /// Opens the store of this name in `folder`, or creates it, and hands every object to `each`.
    pub(super) fn open_on(
        folder: &Path,
        file: &str,
        storage: Storage,
        each: impl FnMut(Key, Origin, &[u8]) -> Result<(), String>,
    ) -> Result<Self, OpenError> {
        let path = folder.join(file);
        let lock = lock(folder, &path)?;
        if !path.exists() {
            create(&path, storage)?;
        }
        // redb promises errors for damaged files, but its debug assertions panic on some.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let database = open_file(&path, storage)?;
            let version = load(&database, &path, each)?;
            Ok((database, version))
        }));
        let (database, version) = opened.unwrap_or_else(|panic| {
            let reason = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(OpenError::Damaged { path: path.clone(), reason })
        })?;
        Ok(Self {
            path,
            storage,
            database: Some(database),
            deferred: BTreeMap::new(),
            deferred_bytes: 0,
            version,
            _lock: lock,
        })
    }

    /// The highest `resourceVersion` that may have been given out.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Makes `writes` durable, and with them everything deferred. If it fails, none of `writes`
    /// happened.
    pub(super) fn commit(&mut self, writes: &[Write], version: u64) -> Result<(), CommitError> {
        let deferred = std::mem::take(&mut self.deferred);
        let all = deferred.iter().chain(writes.iter().map(|(k, r)| (k, r)));
        let result = self.database().and_then(|database| write(database, all, version));
        match result {
            Ok(()) => {
                self.deferred_bytes = 0;
                self.version = version;
                Ok(())
            }
            Err(reason) => {
                self.deferred = deferred;
                // redb serves nothing any more after an I/O error: start over from the last commit.
                self.database = None;
                if let Err(reason) = self.database() {
                    tracing::error!("{}: {reason}", self.path.display());
                }
                Err(CommitError { path: self.path.clone(), reason })
            }
        }
    }

    /// Keeps `writes` in memory until the next commit. Only for what a manifest file holds too.
    pub(super) fn defer(&mut self, writes: Vec<Write>, version: u64) {
        for (key, record) in writes {
            self.deferred_bytes += record.as_ref().map_or(0, |record| record.body.len());
            self.deferred.insert(key, record);
        }
        self.version = version;
        if self.deferred_bytes >= DEFERRED_BYTES {
            self.flush_or_warn();
        }
    }

    /// Whether something waits for a commit.
    pub(super) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Writes out what was deferred. A failure harms nobody yet: it stays deferred.
    pub(super) fn flush_or_warn(&mut self) {
        if !self.has_deferred() {
            return;
        }
        if let Err(error) = self.commit(&[], self.version) {
            tracing::error!("{error}; objects of manifest files are kept in memory for now");
            self.deferred_bytes = 0;
        }
    }

    /// Reads single objects, all from one state.
    pub(super) fn reader(&mut self) -> Result<Reader<'_>, String> {
        let transaction = self.database()?.begin_read().map_err(|error| error.to_string())?;
        let table = transaction.open_table(OBJECTS).map_err(|error| error.to_string())?;
        Ok(Reader { table, deferred: &self.deferred })
    }

    fn database(&mut self) -> Result<&Database, String> {
        if self.database.is_none() {
            let reopened =
                open_file(&self.path, self.storage).map_err(|error| error.to_string())?;
            self.database = Some(reopened);
        }
        Ok(self.database.as_ref().expect("opened above"))
    }
}

/// See [`Persist::reader`].
pub(super) struct Reader<'p> {
    table: ReadOnlyTable<Columns, Row>,
    deferred: &'p BTreeMap<Key, Option<Record>>,
}

impl Reader<'_> {
    /// The whole object.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Bytes>, String> {
        if let Some(record) = self.deferred.get(key) {
            return Ok(record.as_ref().map(|record| record.body.clone()));
        }
        let found = self.table.get(columns(key)).map_err(|error| error.to_string())?;
        Ok(found.map(|guard| Bytes::copy_from_slice(guard.value().1)))
    }
}

/// Another agent may neither use the file nor be about to create it.
fn lock(folder: &Path, path: &Path) -> Result<OwnedFd, OpenError> {
    let io = |source: std::io::Error| OpenError::Io { path: folder.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let descriptor = rustix::fs::open(
        folder,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| io(errno.into()))?;
    match rustix::fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(descriptor),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(errno) => Err(io(errno.into())),
    }
}

/// Makes the file under another name first: a crash in between must not leave a half-made one.
fn create(path: &Path, storage: Storage) -> Result<(), OpenError> {
    let io = |source: std::io::Error| OpenError::Io { path: path.to_owned(), source };
    let new = path.with_extension("redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    let options =
        || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new);
    let database = open_redb(options().map_err(io)?, path, storage)?;
    write(&database, std::iter::empty(), 0)
        .map_err(|reason| OpenError::Damaged { path: path.to_owned(), reason })?;
    drop(database);
    rustix::fs::renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE)
        .map_err(|errno| io(errno.into()))?;
    path.parent().map_or(Ok(()), |folder| File::open(folder).and_then(|f| f.sync_all())).map_err(io)
}

fn open_file(path: &Path, storage: Storage) -> Result<Database, OpenError> {
    let io = |source: std::io::Error| OpenError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    // redb would take an empty file for a new one and begin with nothing.
    if file.metadata().map_err(io)?.len() == 0 {
        return Err(OpenError::Damaged { path: path.to_owned(), reason: "it is empty".to_owned() });
    }
    open_redb(file, path, storage)
}

fn open_redb(file: File, path: &Path, storage: Storage) -> Result<Database, OpenError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    storage(&builder, file).map_err(|error| OpenError::from_redb(path, error))
}

/// Reads everything; returns the version counter.
fn load(
    database: &Database,
    path: &Path,
    mut each: impl FnMut(Key, Origin, &[u8]) -> Result<(), String>,
) -> Result<u64, OpenError> {
    let damaged = |reason: String| OpenError::Damaged { path: path.to_owned(), reason };
    let redb = |error: redb::Error| damaged(error.to_string());
    let transaction = database.begin_read().map_err(|error| redb(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| redb(error.into()))?;
    let number = |name: &str| {
        let value = meta.get(name).map_err(|error| redb(error.into()))?;
        value.map(|guard| guard.value()).ok_or_else(|| damaged(format!("it has no {name}")))
    };
    match number(FORMAT_KEY)? {
        FORMAT => {}
        found => return Err(OpenError::Format { path: path.to_owned(), found, ours: FORMAT }),
    }
    let objects = transaction.open_table(OBJECTS).map_err(|error| redb(error.into()))?;
    for row in objects.iter().map_err(|error| redb(error.into()))? {
        let (key, value) = row.map_err(|error| redb(error.into()))?;
        let (kind, namespace, name) = key.value();
        let kind = Kind::ALL
            .into_iter()
            .find(|k| code(*k) == kind)
            .ok_or_else(|| damaged(format!("unknown kind {kind}")))?;
        let key = Key::new(kind, namespace, name);
        let (origin, body) = value.value();
        each(key.clone(), origin_of(origin), body).map_err(|reason| {
            damaged(format!("{} {}/{}: {reason}", kind.name(), key.namespace, key.name))
        })?;
    }
    number(VERSION_KEY)
}

fn write<'a>(
    database: &Database,
    writes: impl Iterator<Item = (&'a Key, &'a Option<Record>)>,
    version: u64,
) -> Result<(), String> {
    let attempt = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT_KEY, FORMAT)?;
            meta.insert(VERSION_KEY, version)?;
            let mut objects = transaction.open_table(OBJECTS)?;
            for (key, record) in writes {
                match record {
                    Some(record) => {
                        let row = (origin_bytes(&record.origin), record.body.as_ref());
                        objects.insert(columns(key), row)?;
                    }
                    None => {
                        objects.remove(columns(key))?;
                    }
                }
            }
        }
        // redb's default durability: on disk when this returns.
        Ok(transaction.commit()?)
    };
    attempt().map_err(|error| error.to_string())
}

fn columns(key: &Key) -> (u8, &str, &str) {
    (code(key.kind), &key.namespace, &key.name)
}

/// The kind in the file: never to be renumbered.
const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Service => 1,
        Kind::Pod => 2,
        Kind::EndpointSlice => 3,
        Kind::Endpoints => 4,
        Kind::Node => 5,
    }
}

/// In place of a path, which cannot be this.
const CLUSTER: &[u8] = &[0];

/// The path's bytes, since a path need not be UTF-8; empty for `lb apply`.
fn origin_bytes(origin: &Origin) -> &[u8] {
    match origin {
        Origin::Applied => &[],
        Origin::File(path) => path.as_os_str().as_bytes(),
        Origin::Cluster => CLUSTER,
    }
}

fn origin_of(bytes: &[u8]) -> Origin {
    match bytes {
        [] => Origin::Applied,
        CLUSTER => Origin::Cluster,
        path => Origin::File(OsStr::from_bytes(path).into()),
    }
}
