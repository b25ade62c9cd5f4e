//! One manifest file: whether it is one, and its bytes.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The largest manifest that is read. Ten thousand Services are about 4 MiB.
pub const MAX_SIZE: u64 = 64 << 20;

/// Whether a file's name is that of a manifest: `*.yaml`, `*.yml` or `*.json`, and not hidden. Names by
/// which editors keep what is not saved yet (`.a.yaml.swp`, `a.yaml~`, `#a.yaml#`, `4913`) are none.
pub fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| {
        let first = name.as_encoded_bytes().first();
        matches!(first, Some(b'.' | b'#'))
    });
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Reads a whole manifest, unless it is none by its kind or size. Never waits for a pipe's writer.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    Ok(read(path)?.0)
}

/// The bytes, and the state of the file they were read from.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, Fingerprint)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    // Through `<(…)` a shell hands over a pipe: that is meant, and ends with its writer.
    let size = if metadata.is_file() { metadata.len() } else { 0 };
    if metadata.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    if !metadata.is_file() && !path.starts_with("/dev") && !path.starts_with("/proc") {
        return Err(io::Error::other("it is not a regular file"));
    }
    if size > MAX_SIZE {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    if metadata.is_file() {
        bytes.reserve_exact(usize::try_from(size).unwrap_or_default());
    } else {
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty())?;
    }
    (&file).take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > MAX_SIZE) {
        return Err(too_large(MAX_SIZE + 1));
    }
    Ok((bytes, Fingerprint::of(&metadata)))
}

fn too_large(size: u64) -> io::Error {
    io::Error::other(format!(
        "its {size} bytes are more than the {} MiB that lb reads; split it",
        MAX_SIZE >> 20
    ))
}

/// Tells a file that was replaced or written from one that was not, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_and_hidden_files_are_no_manifests() {
        for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
            assert!(is_manifest(Path::new(name)), "{name}");
        }
        for name in [
            ".a.yaml",
            "..data",
            ".a.yaml.swp",
            "a.yaml~",
            "#a.yaml",
            "4913",
            "a.txt",
            "yaml",
            "a.yaml.tmp",
        ] {
            assert!(!is_manifest(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_named_with_the_limit_and_not_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.yaml");
        File::create(&path).and_then(|file| file.set_len(MAX_SIZE + 1)).expect("a sparse file");
        let error = read_bounded(&path).expect_err("too large").to_string();
        assert!(error.contains("64 MiB"), "{error}");
    }

    #[test]
    fn a_pipe_among_the_manifests_does_not_stop_the_watcher() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.yaml");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        let error = read_bounded(&path).expect_err("no file").to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
