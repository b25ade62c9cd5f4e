//! Keeps the packets of a failed case, for reading with tcpdump or Wireshark.

use std::fs;
use std::path::{Path, PathBuf};

use lb_common::sim::flows::Outcome;

/// Writes frames as a pcap file (draft-ietf-opsawg-pcap) below cargo's folder for tests; returns its path. Its frames are
/// numbered as in the message of the failure.
pub(crate) fn keep<'f>(name: &str, frames: impl IntoIterator<Item = &'f [u8]>) -> PathBuf {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let file: String = name.chars().map(word).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{file}.pcap"));
    // Microseconds, version 2.4, frames of any length, Ethernet.
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 0x4_0000, 1] {
        bytes.extend(word.to_ne_bytes());
    }
    for (number, frame) in (0_u32..).zip(frames) {
        let length = u32::try_from(frame.len()).expect("a frame");
        for word in [number, 0, length, length] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// The bytes of what became of a frame.
pub(crate) fn bytes(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Goes(frame) | Outcome::Returns(frame) => frame,
        Outcome::Gone => &[],
    }
}
