//! What manifest files hold that is not served, and who waits for whose objects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::api::types::{RefusedObject, Submitted};
use crate::object::Key;

/// Every manifest file that was reported since the start.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<PathBuf, File>,
    /// Objects that were refused, by the files that would have them.
    claims: BTreeMap<Key, BTreeSet<PathBuf>>,
}

#[derive(Debug, Default)]
struct File {
    problems: Vec<String>,
    refused: Vec<Refused>,
}

/// One object of a file that was refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// `None` if it is too broken to have a name.
    pub(super) key: Option<Key>,
    /// As it came, to try again.
    pub(super) submitted: Submitted,
    /// Why.
    pub(super) message: String,
    /// What would help.
    pub(super) cause: Cause,
}

/// Why an object was refused, as far as that decides when to try it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Someone else has it: again when they give it up.
    Owned,
    /// It breaks a rule: again when something was deleted, such as the Service whose address it wants.
    Invalid,
    /// Only another version of the file helps.
    Final,
}

impl Files {
    /// Whether the file was reported.
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// Sets what a file holds that is not served.
    pub(super) fn set(&mut self, path: &Path, problems: &[String], refused: Vec<Refused>) {
        self.forget(path);
        for key in refused.iter().filter_map(|refused| refused.key.as_ref()) {
            self.claims.entry(key.clone()).or_default().insert(path.to_owned());
        }
        self.files.insert(path.to_owned(), File { problems: problems.to_vec(), refused });
    }

    /// The refused object of that name which the first of all files by name has, other than `leaving`.
    pub(super) fn heir(&self, key: &Key, leaving: Option<&Path>) -> Option<(&Path, &Refused)> {
        let paths = self.claims.get(key)?;
        let path = paths.iter().find(|path| Some(path.as_path()) != leaving)?;
        let refused = self.files.get(path)?.refused.iter();
        let mut refused =
            refused.filter(|r| r.key.as_ref() == Some(key) && r.cause != Cause::Final);
        Some((path, refused.next()?))
    }

    /// Every object that broke a rule, to try it again.
    pub(super) fn invalid(&self) -> Vec<(PathBuf, Refused)> {
        let files = self.files.iter();
        let all = files.flat_map(|(path, file)| file.refused.iter().map(move |r| (path, r)));
        all.filter(|(_, refused)| refused.cause == Cause::Invalid)
            .map(|(path, refused)| (path.clone(), refused.clone()))
            .collect()
    }

    /// Drops files that hold nothing that is refused: most of them, and those that are gone. Until
    /// the first sync they show which files still exist.
    pub(super) fn drop_clean(&mut self) {
        self.files.retain(|_, file| !(file.problems.is_empty() && file.refused.is_empty()));
    }

    /// An object of a file that was refused is served now.
    pub(super) fn accepted(&mut self, path: &Path, key: &Key) {
        if let Some(file) = self.files.get_mut(path) {
            let mut first = true;
            file.refused.retain(|refused| {
                let this = first && refused.key.as_ref() == Some(key);
                first &= !this;
                !this
            });
        }
        self.drop_claim(path, key);
    }

    /// For `lb status`.
    pub(super) fn refused(&self) -> impl Iterator<Item = RefusedObject> {
        self.files.iter().flat_map(|(path, file)| {
            let problems = file.problems.iter().map(|problem| RefusedObject {
                source: path.display().to_string(),
                object: String::new(),
                namespace: String::new(),
                message: problem.clone(),
            });
            problems.chain(file.refused.iter().map(|refused| RefusedObject {
                source: refused.submitted.position.clone(),
                object: refused.key.as_ref().map(ToString::to_string).unwrap_or_default(),
                namespace:
                    refused.key.as_ref().map(|key| key.namespace.to_string()).unwrap_or_default(),
                message: refused.message.clone(),
            }))
        })
    }

    fn forget(&mut self, path: &Path) {
        if let Some(file) = self.files.remove(path) {
            for key in file.refused.iter().filter_map(|refused| refused.key.as_ref()) {
                self.drop_claim(path, key);
            }
        }
    }

    fn drop_claim(&mut self, path: &Path, key: &Key) {
        if let Some(paths) = self.claims.get_mut(key) {
            paths.remove(path);
            if paths.is_empty() {
                self.claims.remove(key);
            }
        }
    }
}
