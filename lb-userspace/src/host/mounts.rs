//! `/proc/self/mountinfo`, as far as lb needs it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount that this process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Which folder of the file system is mounted; `/` is all of it.
    pub(crate) root: String,
    /// Where.
    pub(crate) point: PathBuf,
    /// `cgroup2`, `bpf`, ….
    pub(crate) kind: String,
    /// Options of the file system itself, such as the controllers of a version 1 cgroup.
    pub(crate) options: String,
}

/// Every mount of this process.
pub(super) fn mounts() -> io::Result<Vec<Mount>> {
    mounts_of(Path::new("/proc/self"))
}

/// Every mount that a process sees; `process` is its folder in /proc.
pub(crate) fn mounts_of(process: &Path) -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string(process.join("mountinfo"))?))
}

/// Whether this process has a mount namespace of its own, as in a container: what it mounts ends with that.
/// False if it cannot be told.
pub(super) fn are_own() -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    namespace("1").is_some_and(|nodes| namespace("self").is_some_and(|own| own != nodes))
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime master:1 - kind source options`; see proc_pid_mountinfo(5).
fn parse_line(line: &str) -> Option<Mount> {
    let (place, file_system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let mut file_system = file_system.split(' ');
    Some(Mount {
        root: unescape(place.next()?).to_string_lossy().into_owned(),
        point: unescape(place.next()?).into(),
        kind: file_system.next()?.to_owned(),
        options: file_system.nth(1).unwrap_or_default().to_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(word: &str) -> OsString {
    let bytes = word.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes
            .get(at + 1..at + 4)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_and_escaped_spaces_are_understood() {
        let line =
            r"42 28 0:39 / /mnt/a\040b rw,nosuid shared:5 master:2 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(
            parse(line),
            [Mount {
                root: "/".into(),
                point: "/mnt/a b".into(),
                kind: "cgroup2".into(),
                options: "rw,nsdelegate".into(),
            }]
        );
    }

    #[test]
    fn a_backslash_that_begins_no_number_stays() {
        assert_eq!(unescape(r"a\b"), OsString::from(r"a\b"));
        assert_eq!(unescape(r"a\134"), OsString::from(r"a\"));
    }
}
