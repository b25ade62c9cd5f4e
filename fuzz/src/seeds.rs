//! Inputs to begin with: one of each kind that a fuzzer would be long in finding.
//!
//! Numbers in messages are in network order (RFC 1035, section 4).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const A: u16 = 1;
const PTR: u16 = 12;
const SRV: u16 = 33;
const AXFR: u16 = 252;
const ANY: u16 = 255;
const SERVICE: &str = "mysql.default.svc.cluster.local";

/// Packets for the DNS server, with names.
#[must_use]
pub fn dns_requests() -> Vec<(&'static str, Vec<u8>)> {
    let a = || query(&[question(SERVICE, A)]);
    // Four labels that fill the 255 bytes of RFC 1035, section 2.3.4, with their lengths and the root.
    let longest = [63, 63, 63, 61].map(|length| "x".repeat(length)).join(".");
    vec![
        ("a", a()),
        ("a-mixed-case", query(&[question("MySQL.Default.SVC.cluster.LOCAL", A)])),
        ("a-edns-4096", with_edns(a(), 4096, &[])),
        ("a-edns-0", with_edns(a(), 0, &[])),
        ("a-edns-65535", with_edns(a(), 65_535, &[])),
        ("a-edns-cookie", with_edns(a(), 1232, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("a-two-opts", with_edns(with_edns(a(), 1232, &[]), 512, &[])),
        ("srv", query(&[question(&format!("_sql._tcp.{SERVICE}"), SRV)])),
        ("ptr", query(&[question("10.0.96.10.in-addr.arpa", PTR)])),
        ("any", query(&[question(SERVICE, ANY)])),
        ("axfr", query(&[question("cluster.local", AXFR)])),
        ("another-zone", query(&[question("example.com", A)])),
        ("chaos-class", query(&[[name("version.bind"), vec![0, 16, 0, 3]].concat()])),
        ("name-255-bytes", query(&[question(&longest, A)])),
        ("name-257-bytes", query(&[question(&format!("y.{longest}"), A)])),
        ("name-root", query(&[vec![0, 0, 2, 0, 1]])),
        // Byte 12, where the name begins.
        ("pointer-to-itself", query(&[vec![0xc0, 12, 0, 1, 0, 1]])),
        ("pointer-loop", query(&[vec![0xc0, 14, 0xc0, 12, 0, 1, 0, 1]])),
        ("pointer-into-header", query(&[vec![0xc0, 4, 0, 1, 0, 1]])),
        ("pointer-past-the-end", query(&[vec![0xff, 0xff, 0, 1, 0, 1]])),
        ("questions-none", query(&[])),
        ("questions-two", query(&[question(SERVICE, A), question("example.com", A)])),
        ("questions-65535-promised", changed(a(), 4, &[0xff, 0xff])),
        ("records-promised", changed(a(), 6, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("opcode-update", changed(a(), 2, &[5 << 3])),
        ("opcode-reserved", changed(a(), 2, &[15 << 3])),
        ("response", changed(a(), 2, &[0x81, 0x80])),
        ("trailing-bytes", [a(), vec![0; 20]].concat()),
        ("header-truncated", a()[..7].to_vec()),
        ("header-only", a()[..12].to_vec()),
        ("question-truncated", a()[..30].to_vec()),
        ("empty", Vec::new()),
    ]
}

/// All inputs that are kept for a target, with their files.
///
/// # Panics
///
/// If a folder or file cannot be read.
#[must_use]
pub fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries =
        entries.unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    files.sort();
    let read = |file: PathBuf| {
        let bytes = fs::read(&file);
        let bytes = bytes.unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        (file, bytes)
    };
    files.into_iter().map(read).collect()
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A query with recursion desired.
fn query(questions: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(questions.len()).expect("a few questions");
    let header = vec![0x1b, 0x04, 1, 0, 0, count, 0, 0, 0, 0, 0, 0];
    [header, questions.concat()].concat()
}

fn question(text: &str, kind: u16) -> Vec<u8> {
    [name(text), kind.to_be_bytes().to_vec(), vec![0, 1]].concat()
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// Adds an OPT record (RFC 6891, section 6.1.2) with these options.
fn with_edns(mut query: Vec<u8>, size: u16, options: &[u8]) -> Vec<u8> {
    query[11] += 1;
    query.extend([0, 0, 41]);
    query.extend(size.to_be_bytes());
    query.extend([0; 4]);
    query.extend(u16::try_from(options.len()).expect("short options").to_be_bytes());
    query.extend(options);
    query
}

/// The packet with other bytes from this place on.
fn changed(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_holds_the_seeds() {
        let folder = folder("dns_request");
        for (name, bytes) in dns_requests() {
            let file = folder.join(name);
            if std::env::var_os("LB_WRITE_SEEDS").is_some() {
                fs::create_dir_all(&folder).expect("a folder for the corpus");
                fs::write(&file, &bytes).expect("a file of the corpus");
            }
            let kept = fs::read(&file).unwrap_or_default();
            assert_eq!(
                kept,
                bytes,
                "{}: write it with `LB_WRITE_SEEDS=1 cargo test -p lb-fuzz`",
                file.display()
            );
        }
    }
}
