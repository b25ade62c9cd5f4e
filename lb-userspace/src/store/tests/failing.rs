//! A disk that is full for a while.

use std::cell::Cell;
use std::fs::File;
use std::io::Error;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::*;
use crate::api::types::Verdict;
use crate::object::Object;
use crate::store::allocate::Pools;
use crate::store::{Authority, CommitError, Store};

thread_local! {
    /// Of the disk under this test; redb does its work in the thread that asks for it.
    static FULL: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct Disk(FileBackend);

fn space() -> Result<(), Error> {
    if FULL.get() { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        space().and_then(|()| self.0.set_len(len))
    }

    fn sync_data(&self) -> Result<(), Error> {
        space().and_then(|()| self.0.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        space().and_then(|()| self.0.write(offset, data))
    }
}

fn on_disk(builder: &Builder, file: File) -> Result<Database, DatabaseError> {
    builder.create_with_backend(Disk(FileBackend::new(file)?))
}

fn store(folder: &TempDir) -> Store {
    let ranges = ["10.96.0.0/28".parse().expect("a range")];
    let pools = Pools::new(&ranges).expect("a range");
    Store::open_on(folder.path(), "us", Authority::Agent, pools, on_disk).expect("there is space")
}

fn service(name: &str) -> Object {
    let value = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]},
    });
    Object::from_value(value).expect("a Service").0
}

fn apply(store: &mut Store, names: &[&str]) -> Result<usize, CommitError> {
    let origin = Arc::new(Origin::Applied);
    let mut batch = store.batch();
    for name in names {
        let (verdict, _) = batch.submit(&origin, service(name), false).expect("it is valid");
        assert_eq!(verdict, Verdict::Created);
    }
    batch.commit().map(|committed| committed.affected.len())
}

fn names(store: &mut Store) -> Vec<String> {
    let list = store.list(Kind::Service, None, None);
    list.iter().map(|o| o["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_batch_that_cannot_be_written_never_happened_and_the_next_one_can() {
    let folder = folder();
    let mut store = store(&folder);
    assert_eq!(apply(&mut store, &["a"]).expect("there is space"), 1);

    FULL.set(true);
    // The range has 14 addresses: if one failure kept its two, the later ones would not fit.
    for _ in 0..20 {
        let error = apply(&mut store, &["b", "c"]).expect_err("the disk is full");
        let message = error.to_string();
        assert!(
            message.contains("lb.redb") && message.ends_with("nothing was changed"),
            "{message}"
        );
    }
    assert_eq!(store.services().count(), 1);
    FULL.set(false);
    assert_eq!(names(&mut store), ["a"], "what was there is there");
    assert_eq!(apply(&mut store, &["b", "c"]).expect("there is space again"), 2);

    drop(store);
    let mut store = self::store(&folder);
    assert_eq!(names(&mut store), ["a", "b", "c"]);
}

#[test]
fn what_was_deferred_outlives_the_failure() {
    let folder = folder();
    let mut persist =
        Persist::open_on(folder.path(), OWN_FILE, on_disk, |_, _, _| Ok(())).expect("new");
    persist.defer(vec![(key("a"), record("1"))], 1);
    FULL.set(true);
    persist.commit(&[(key("a"), record("2")), (key("b"), record("3"))], 2).expect_err("full");
    persist.flush_or_warn();
    assert!(persist.has_deferred());
    FULL.set(false);
    let reader = persist.reader().expect("readable");
    assert_eq!(reader.get(&key("a")).expect("readable").as_deref(), Some(b"1".as_slice()));
    assert_eq!(reader.get(&key("b")).expect("readable"), None);
    persist.flush_or_warn();
    drop(persist);
    let (_, rows) = open(&folder).expect("whole");
    assert_eq!(rows, [("a".to_owned(), Origin::Applied, "1".to_owned())]);
}
