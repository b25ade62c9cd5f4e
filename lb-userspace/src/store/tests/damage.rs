//! Truncated and corrupt state files: an error with a remedy, never a panic, never an empty store.

use std::path::Path;

use super::*;

/// A store with objects in several pages.
fn filled() -> (TempDir, Vec<u8>) {
    let folder = folder();
    let (mut persist, _) = open(&folder).expect("a new store");
    let writes: Vec<_> =
        (0..200).map(|i| (key(&format!("pod-{i}")), record(&format!("{i}").repeat(100)))).collect();
    for (version, chunk) in (1..).zip(writes.chunks(50)) {
        persist.commit(chunk, version).expect("space");
    }
    drop(persist);
    let bytes = std::fs::read(folder.path().join("lb.redb")).expect("it is there");
    (folder, bytes)
}

/// Opens `bytes` as a state file. What opens must be whole.
fn must_be_refused_or_whole(bytes: &[u8], what: &str) -> bool {
    let folder = folder();
    let path = folder.path().join("lb.redb");
    std::fs::write(&path, bytes).expect("space");
    let result = std::panic::catch_unwind(|| open(&folder).map(|(_, rows)| rows));
    match result.unwrap_or_else(|_| panic!("{what}: panicked")) {
        Ok(rows) => {
            assert_eq!(rows.len(), 200, "{what}: opened with objects missing");
            let right = |(name, _, body): &(String, Origin, String)| {
                name.strip_prefix("pod-").map(|i| i.repeat(100)).as_ref() == Some(body)
            };
            assert!(rows.iter().all(right), "{what}: opened with other content");
            false
        }
        Err(error) => {
            says_what_to_do(&error, &path, what);
            assert!(path.exists(), "{what}: the file stays for a person to look at");
            true
        }
    }
}

fn says_what_to_do(error: &OpenError, path: &Path, what: &str) {
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "{what}: {message}");
    assert!(message.contains("move it aside"), "{what}: {message}");
    assert!(message.contains("ClusterIPs"), "{what}: says what is lost: {message}");
}

#[test]
fn truncated_at_any_length_it_is_refused() {
    let (_folder, bytes) = filled();
    let lengths = [0, 1, 9, 64, 100, 319, 320, 4095, 4096, 4097, 8192, 12_288, 65_536];
    let tail = [bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1];
    for length in lengths.into_iter().chain(tail).filter(|length| *length < bytes.len()) {
        let what = format!("{length} of {} bytes", bytes.len());
        assert!(must_be_refused_or_whole(&bytes[..length], &what), "{what}: opened");
    }
    assert!(!must_be_refused_or_whole(&bytes, "the whole file"));
}

#[test]
fn something_else_is_refused() {
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100_000).collect();
    assert!(must_be_refused_or_whole(&noise, "noise"));
    assert!(must_be_refused_or_whole(&[0; 65_536], "zeros"));
    assert!(must_be_refused_or_whole(b"apiVersion: v1\nkind: Service\n", "a manifest"));
}

/// A page overwritten somewhere is found by its checksum, or lies where nothing is kept.
#[test]
fn with_pages_overwritten_it_is_refused_or_whole() {
    let (_folder, bytes) = filled();
    let mut random = fastrand::Rng::with_seed(2);
    let mut refused = 0;
    for round in 0..150 {
        let mut damaged = bytes.clone();
        let used = damaged.len();
        let at = random.usize(..used);
        let length = random.usize(1..300).min(used - at);
        damaged[at..at + length].fill_with(|| random.u8(..));
        let what = format!("round {round}: {length} bytes at {at}");
        refused += usize::from(must_be_refused_or_whole(&damaged, &what));
    }
    assert!(refused > 0, "the test damages something that matters");
}
