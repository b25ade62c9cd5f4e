//! The state file: what it promises when things go wrong.

mod damage;
mod failing;

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use tempfile::TempDir;

use super::error::OpenError;
use super::persist::{OWN_FILE, Persist, Record, on_file};
use crate::api::types::Origin;
use crate::object::{Key, Kind};

type Rows = Vec<(String, Origin, String)>;

fn key(name: &str) -> Key {
    Key::new(Kind::Pod, "default", name)
}

fn record(body: &str) -> Option<Record> {
    Some(Record { origin: Origin::Applied, body: Bytes::copy_from_slice(body.as_bytes()) })
}

fn open(folder: &TempDir) -> Result<(Persist, Rows), OpenError> {
    let mut rows = Vec::new();
    let persist = Persist::open_on(folder.path(), OWN_FILE, on_file, |key, origin, body| {
        rows.push((key.name.to_string(), origin, String::from_utf8_lossy(body).into_owned()));
        Ok(())
    })?;
    Ok((persist, rows))
}

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

#[test]
fn objects_come_back_with_origin_and_version() {
    let folder = folder();
    let (mut persist, rows) = open(&folder).expect("a new store");
    assert_eq!((rows.len(), persist.version()), (0, 0));
    let odd = std::ffi::OsStr::new("/m/\u{e4} b.yaml");
    let from_file = Record { origin: Origin::File(odd.into()), body: Bytes::from_static(b"file") };
    persist.commit(&[(key("a"), record("1")), (key("b"), Some(from_file))], 7).expect("space");
    persist.commit(&[(key("c"), record("3")), (key("a"), None)], 9).expect("space");
    let body = persist.reader().expect("open").get(&key("c")).expect("readable");
    assert_eq!(body.as_deref(), Some(b"3".as_slice()));
    drop(persist);
    let (persist, rows) = open(&folder).expect("the same store");
    let expected = [
        ("b".to_owned(), Origin::File(odd.into()), "file".to_owned()),
        ("c".to_owned(), Origin::Applied, "3".to_owned()),
    ];
    assert_eq!((rows.as_slice(), persist.version()), (expected.as_slice(), 9));
}

#[test]
fn deferred_objects_are_readable_at_once_and_written_with_the_next_commit() {
    let folder = folder();
    let (mut persist, _) = open(&folder).expect("a new store");
    persist.commit(&[(key("gone"), record("old"))], 1).expect("space");
    persist.defer(vec![(key("a"), record("1")), (key("gone"), None)], 2);
    let reader = persist.reader().expect("open");
    assert_eq!(reader.get(&key("a")).expect("readable").as_deref(), Some(b"1".as_slice()));
    assert_eq!(reader.get(&key("gone")).expect("readable"), None);
    persist.commit(&[(key("a"), record("2"))], 3).expect("space");
    assert!(!persist.has_deferred());
    drop(persist);
    let (_, rows) = open(&folder).expect("the same store");
    assert_eq!(rows, [("a".to_owned(), Origin::Applied, "2".to_owned())]);
}

#[test]
fn only_the_owner_may_read_the_state() {
    let folder = folder();
    let inner = folder.path().join("new/state");
    drop(Persist::open_on(&inner, OWN_FILE, on_file, |_, _, _| Ok(())).expect("a new store"));
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!((mode(&inner), mode(&inner.join("lb.redb"))), (0o700, 0o600));
}

#[test]
fn a_second_owner_is_refused_by_name() {
    let folder = folder();
    let _first = open(&folder).expect("a new store");
    let error = open(&folder).expect_err("it is in use");
    assert!(matches!(&error, OpenError::Locked { path } if path.ends_with("lb.redb")), "{error}");
}

#[test]
fn a_file_that_another_process_has_locked_is_refused_too() {
    let folder = folder();
    drop(open(&folder).expect("a new store"));
    let path = folder.path().join("lb.redb");
    let _other = redb::Database::open(&path).expect("it is free");
    let error = open(&folder).expect_err("it is in use");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[test]
fn another_format_is_named_and_left_alone() {
    let folder = folder();
    drop(open(&folder).expect("a new store"));
    let database = redb::Database::open(folder.path().join("lb.redb")).expect("it is free");
    let transaction = database.begin_write().expect("space");
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    transaction.open_table(meta).expect("it is there").insert("format", 99).expect("space");
    transaction.commit().expect("space");
    drop(database);
    let error = open(&folder).expect_err("it is of another format");
    assert!(matches!(error, OpenError::Format { found: 99, .. }), "{error}");
}

#[test]
fn a_crash_while_the_file_was_made_does_not_matter() {
    let folder = folder();
    std::fs::write(folder.path().join("lb.redb.new"), b"half").expect("space");
    let (persist, rows) = open(&folder).expect("a new store");
    assert_eq!((rows.len(), persist.version()), (0, 0));
    assert!(!folder.path().join("lb.redb.new").exists());
}
