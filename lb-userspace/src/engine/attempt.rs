//! One submitted object: read, admitted or refused; and what becomes of objects that are given up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Cause, Files, Refused};
use crate::api::types::{Origin, Outcome, Submitted, Verdict};
use crate::object::{Key, Object};
use crate::store::{Batch, CommitError, Refusal};

/// A submitted object that was read, before it is admitted.
pub(super) struct Read {
    submitted: Submitted,
    object: Result<(Object, Vec<String>), String>,
}

impl Read {
    /// Reads a file's objects. Also says whether nothing of the file is missing.
    pub(super) fn all(objects: Vec<Submitted>, problems: &[String]) -> (Vec<Self>, bool) {
        let read: Vec<Self> = objects.into_iter().map(Self::new).collect();
        let complete = problems.is_empty() && read.iter().all(|read| read.object.is_ok());
        (read, complete)
    }

    fn new(submitted: Submitted) -> Self {
        let object = Object::from_value(submitted.object.clone());
        Self { submitted, object: object.map_err(|error| error.to_string()) }
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.object.as_ref().ok().map(|(object, _)| object.key())
    }

    pub(super) fn admit(
        self,
        batch: &mut Batch<'_>,
        origin: &Arc<Origin>,
        inherit: bool,
    ) -> Attempt {
        let key = self.key();
        let result = match self.object {
            Ok((object, mut warnings)) => match batch.submit(origin, object, inherit) {
                Ok((verdict, more)) => {
                    warnings.extend(more);
                    Ok((verdict, warnings))
                }
                Err(refusal) => Err((cause(&refusal), refusal.to_string())),
            },
            Err(message) => Err((Cause::Final, message)),
        };
        Attempt { key, submitted: self.submitted, result }
    }
}

/// A submitted object and what became of it.
pub(super) struct Attempt {
    key: Option<Key>,
    submitted: Submitted,
    result: Result<(Verdict, Vec<String>), (Cause, String)>,
}

impl Attempt {
    pub(super) fn admit(
        batch: &mut Batch<'_>,
        origin: &Arc<Origin>,
        submitted: Submitted,
        inherit: bool,
    ) -> Self {
        Read::new(submitted).admit(batch, origin, inherit)
    }

    /// For the file's book, if it was refused, or if its batch failed; the latter may do better later.
    pub(super) fn refused(&self, failed: Option<&CommitError>) -> Option<Refused> {
        let (cause, message) = match (&self.result, failed) {
            (Err((cause, message)), _) => (*cause, message.clone()),
            (Ok(_), Some(error)) => (Cause::Invalid, error.to_string()),
            (Ok(_), None) => return None,
        };
        Some(Refused { key: self.key.clone(), submitted: self.submitted.clone(), message, cause })
    }

    pub(super) fn outcome(self) -> Outcome {
        let (result, warnings) = match self.result {
            Ok(admission) => admission,
            Err((_, message)) if self.submitted.position.is_empty() => {
                (Verdict::Refused(message), Vec::new())
            }
            Err((_, message)) => {
                (Verdict::Refused(format!("{}: {message}", self.submitted.position)), Vec::new())
            }
        };
        Outcome { key: self.key, result, warnings }
    }
}

/// Objects of other files that were refused and are accepted in this batch.
#[derive(Debug, Default)]
pub(super) struct Heirs(Vec<(PathBuf, Key)>);

impl Heirs {
    pub(super) fn note(&mut self, path: PathBuf, attempt: Attempt) -> bool {
        let accepted = attempt.result.is_ok();
        if let Some(key) = attempt.key.filter(|_| accepted) {
            self.0.push((path, key));
        }
        accepted
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The batch was committed.
    pub(super) fn accept(self, files: &mut Files) {
        for (path, key) in self.0 {
            files.accepted(&path, &key);
        }
    }
}

/// The owner of `keys` gives them up. An object that another file holds too, and that was refused
/// for that, takes the place without a gap: with the same ClusterIP, and nobody sees it go. So a
/// file can be renamed. All others are deleted.
pub(super) fn give_up(
    batch: &mut Batch<'_>,
    files: &Files,
    keys: &[Key],
    leaving: Option<&Path>,
) -> Heirs {
    let mut heirs = Heirs::default();
    for key in keys {
        batch.section();
        if let Some((path, refused)) = files.heir(key, leaving) {
            let origin = Arc::new(Origin::File(path.to_owned()));
            let attempt = Attempt::admit(batch, &origin, refused.submitted.clone(), true);
            if heirs.note(path.to_owned(), attempt) {
                continue;
            }
        }
        if let Err(refusal) = batch.remove(key) {
            tracing::error!("cannot delete {key} in namespace {}: {refusal}", key.namespace);
        }
    }
    heirs
}

fn cause(refusal: &Refusal) -> Cause {
    match refusal {
        Refusal::Owned { .. } => Cause::Owned,
        Refusal::Invalid(_) => Cause::Invalid,
        Refusal::Duplicate { .. } | Refusal::Unreadable(_) => Cause::Final,
    }
}
