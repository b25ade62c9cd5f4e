//! What a folder of manifests holds, and what of it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{Fingerprint, is_manifest, read};
use crate::api::types::Submitted;
use crate::object::{Document, Object, Problem, decode};

/// A manifest file that is new, changed or gone.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The file.
    pub(super) path: PathBuf,
    /// All it holds now; nothing if it is gone.
    pub(super) content: Content,
}

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Its objects.
    pub(super) objects: Vec<Submitted>,
    /// Why some of it, or all of it, is not among them.
    pub(super) problems: Vec<String>,
    /// Worth saying: kinds that are not served, unknown fields.
    pub(super) warnings: Vec<String>,
}

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// Anything; look at every file.
    pub(super) all: bool,
    /// These files; read them even if they look untouched.
    pub(super) paths: BTreeSet<PathBuf>,
}

impl Dirty {
    pub(super) fn everything() -> Self {
        Self { all: true, paths: BTreeSet::new() }
    }
}

/// A folder and what was last seen in it.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    known: BTreeMap<PathBuf, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    /// Of the file that was read; `None` if it could not be.
    fingerprint: Option<Fingerprint>,
    /// Of its bytes, or of the reason why there are none.
    hash: u64,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: BTreeMap::new() }
    }

    /// Looks at what may have changed. Files that came or changed precede those that are gone, so that an
    /// object whose file was renamed stays.
    pub(super) fn scan(&mut self, dirty: &Dirty) -> io::Result<Vec<Change>> {
        let mut look_at = dirty.paths.clone();
        if dirty.all {
            look_at.extend(self.list()?);
            look_at.extend(self.known.keys().cloned());
        }
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        for path in look_at {
            let surely = dirty.paths.contains(&path);
            match self.look(&path, surely) {
                Look::Same => {}
                Look::Changed(content) => changes.push(Change { path, content }),
                Look::Gone => gone.push(Change { path, content: Content::default() }),
            }
        }
        changes.append(&mut gone);
        Ok(changes)
    }

    /// Every file is gone, as the folder is.
    pub(super) fn vanished(&mut self) -> Vec<Change> {
        let known = std::mem::take(&mut self.known);
        known.into_keys().map(|path| Change { path, content: Content::default() }).collect()
    }

    /// The folders that hold the files to which the manifests here are links.
    pub(super) fn linked_folders(&self) -> BTreeSet<PathBuf> {
        let links = self.known.keys().filter(|path| path.is_symlink());
        let targets = links.filter_map(|path| path.canonicalize().ok());
        let own = self.path.canonicalize().ok();
        targets
            .filter_map(|target| target.parent().map(Path::to_owned))
            .filter(|folder| Some(folder) != own.as_ref())
            .collect()
    }

    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if is_manifest(&path) && !path.is_dir() {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn look(&mut self, path: &Path, surely: bool) -> Look {
        if path.symlink_metadata().is_err_and(|error| is_absence(&error)) || path.is_dir() {
            return if self.known.remove(path).is_some() { Look::Gone } else { Look::Same };
        }
        let known = self.known.get(path);
        if let (false, Some(Seen { fingerprint: Some(seen), .. })) = (surely, known)
            && path.metadata().is_ok_and(|now| Fingerprint::of(&now) == *seen)
        {
            return Look::Same;
        }
        let (fingerprint, result) = match read(path) {
            Ok((bytes, fingerprint)) => (Some(fingerprint), Ok(bytes)),
            Err(error) => (None, Err(format!("{}: cannot be read: {error}", path.display()))),
        };
        let hash = hash(&result);
        let same = known.is_some_and(|known| known.hash == hash);
        self.known.insert(path.to_owned(), Seen { fingerprint, hash });
        if same { Look::Same } else { Look::Changed(Content::of(path, result)) }
    }
}

enum Look {
    Same,
    Changed(Content),
    Gone,
}

impl Content {
    fn of(path: &Path, result: Result<Vec<u8>, String>) -> Self {
        let mut content = Self::default();
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(problem) => {
                content.problems.push(problem);
                return content;
            }
        };
        for decoded in decode(&bytes, &path.display().to_string()) {
            match decoded {
                Ok(document) => content.add(document),
                Err(problem @ Problem::Unserved { .. }) => {
                    content.warnings.push(problem.to_string());
                }
                Err(problem @ Problem::Malformed { .. }) => {
                    content.problems.push(problem.to_string());
                }
            }
        }
        content
    }

    fn add(&mut self, document: Document) {
        let position = format!("{}:{}", document.position.file, document.position.line);
        self.warnings.extend(document.warnings);
        match object_json(&document.object) {
            Ok(object) => self.objects.push(Submitted { object, position }),
            Err(error) => self.problems.push(format!("{position}: {error}")),
        }
    }
}

/// The object as the API carries it, with `apiVersion` and `kind`.
pub(crate) fn object_json(object: &Object) -> serde_json::Result<serde_json::Value> {
    match object {
        Object::Service(object) => serde_json::to_value(object),
        Object::Pod(object) => serde_json::to_value(object),
        Object::EndpointSlice(object) => serde_json::to_value(object),
        Object::Endpoints(object) => serde_json::to_value(object),
        Object::Node(object) => serde_json::to_value(object),
    }
}

pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn hash(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(dir.path().to_owned());
        (dir, folder)
    }

    fn scan(folder: &mut Folder) -> Vec<String> {
        let changes = folder.scan(&Dirty::everything()).expect("readable");
        let name = |change: &Change| {
            change.path.file_name().expect("named").to_string_lossy().into_owned()
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn only_what_changed_is_submitted() {
        let (dir, mut folder) = folder();
        let a = dir.path().join("a.yaml");
        fs::write(&a, "# one").expect("written");
        fs::write(dir.path().join("b.yaml"), "# two").expect("written");
        assert_eq!(scan(&mut folder), ["a.yaml", "b.yaml"]);
        assert_eq!(scan(&mut folder), [""; 0]);
        fs::write(&a, "# 1!!").expect("written");
        assert_eq!(scan(&mut folder), ["a.yaml"]);
        // Another file with the same bytes in its place is no change.
        fs::write(dir.path().join("new"), "# 1!!").expect("written");
        fs::rename(dir.path().join("new"), &a).expect("renamed");
        assert_eq!(scan(&mut folder), [""; 0]);
    }

    #[test]
    fn a_renamed_file_comes_under_its_new_name_before_it_leaves_under_the_old() {
        let (dir, mut folder) = folder();
        fs::write(dir.path().join("a.yaml"), "# one").expect("written");
        scan(&mut folder);
        fs::rename(dir.path().join("a.yaml"), dir.path().join("b.yaml")).expect("renamed");
        assert_eq!(scan(&mut folder), ["b.yaml", "a.yaml"]);
    }

    #[test]
    fn a_named_file_is_read_even_if_it_looks_untouched() {
        let (dir, mut folder) = folder();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "# one").expect("written");
        scan(&mut folder);
        // As if the second write fell into the same tick of the file system's clock.
        fs::write(&path, "# two").expect("written");
        let seen = folder.known.get_mut(&path).expect("seen");
        seen.fingerprint = Some(Fingerprint::of(&path.metadata().expect("there")));
        assert_eq!(scan(&mut folder), [""; 0]);
        let dirty = Dirty { all: false, paths: [path].into() };
        assert_eq!(folder.scan(&dirty).expect("readable").len(), 1);
    }

    #[test]
    fn a_dangling_link_is_a_problem_and_no_removal() {
        let (dir, mut folder) = folder();
        std::os::unix::fs::symlink("nowhere", dir.path().join("a.yaml")).expect("linked");
        let changes = folder.scan(&Dirty::everything()).expect("readable");
        assert_eq!(changes.len(), 1);
        assert!(changes[0].content.problems[0].contains("a.yaml: cannot be read"));
        assert_eq!(scan(&mut folder), [""; 0], "the same problem is told once");
    }

    #[test]
    fn links_lead_to_the_folders_of_their_targets() {
        let (dir, mut folder) = folder();
        let other = tempfile::tempdir().expect("a temporary folder");
        fs::write(other.path().join("t.yaml"), "").expect("written");
        std::os::unix::fs::symlink(other.path().join("t.yaml"), dir.path().join("a.yaml"))
            .expect("linked");
        fs::write(dir.path().join("b.yaml"), "").expect("written");
        scan(&mut folder);
        let expected = other.path().canonicalize().expect("there");
        assert_eq!(folder.linked_folders(), [expected].into());
    }
}
