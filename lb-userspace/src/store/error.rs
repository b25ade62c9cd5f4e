//! What can go wrong with the store, each with its remedy.

use std::path::{Path, PathBuf};

use crate::api::types::Origin;
use crate::object::Key;

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent has it.
    #[error("state file {}: in use: another agent uses this --state-dir; stop it, or give this one a --state-dir of its own", path.display())]
    Locked {
        /// The state file.
        path: PathBuf,
    },
    /// Truncated or corrupt. Beginning with nothing would give every Service another address, so that is left to a person.
    #[error(
        "state file {}: damaged ({reason}). To begin anew, move it aside: mv '{}' '{}.damaged'. \
         Objects of manifest files come back by themselves; what came by `lb apply` has to be applied again, \
         and ClusterIPs that no manifest states are allocated anew", path.display(), path.display(), path.display()
    )]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by another version of lb.
    #[error("state file {}: its format is {found}, this lb knows format {ours}; use the lb that wrote it, or move the file aside", path.display())]
    Format {
        /// The state file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        ours: u64,
    },
    /// The operating system refused.
    #[error("state file {}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl OpenError {
    pub(super) fn from_redb(path: &Path, error: redb::DatabaseError) -> Self {
        let path = path.to_owned();
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen
            | redb::DatabaseError::LockProtocolMismatch => Self::Locked { path },
            redb::DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() != std::io::ErrorKind::InvalidData
                    && source.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                Self::Io { path, source }
            }
            error @ (redb::DatabaseError::Storage(_)
            | redb::DatabaseError::RepairAborted
            | redb::DatabaseError::UpgradeRequired(_)
            | redb::DatabaseError::TransactionInProgress
            | _) => Self::Damaged { path, reason: error.to_string() },
        }
    }
}

/// A batch could not be made durable; nothing of it happened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write state file {}: {reason}; nothing was changed", path.display())]
pub struct CommitError {
    /// The state file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// One object was refused; its neighbours in the batch were not.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It belongs to someone else.
    #[error("{} {:?}{}: already defined by {}; remove it there first",
        key.kind.name(), key.name, in_namespace(key), crate::engine::describe(owner))]
    Owned {
        /// The object.
        key: Key,
        /// Who has it.
        owner: Origin,
    },
    /// The same batch defines it twice.
    #[error("{} {:?}{}: defined twice in {}; the first definition counts",
        key.kind.name(), key.name, in_namespace(key), crate::engine::describe(origin))]
    Duplicate {
        /// The object.
        key: Key,
        /// Where.
        origin: Origin,
    },
    /// It breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The stored version cannot be read.
    #[error("cannot read state file: {0}")]
    Unreadable(String),
}

fn in_namespace(key: &Key) -> String {
    if key.kind.namespaced() { format!(" in namespace {:?}", key.namespace) } else { String::new() }
}
