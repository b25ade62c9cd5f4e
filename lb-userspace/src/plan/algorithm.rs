//! How new flows on the packet path are spread over endpoints.

use std::fmt;
use std::str::FromStr;

use super::{Frontend, FrontendKind, NodeView};
use crate::store::model::Service;

/// `--lb-algorithm`, and the annotation `lb.algorithm` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By a table that nodes with the same endpoints have in common.
    #[default]
    Maglev,
    /// Each flow anew.
    Random,
}

impl Algorithm {
    /// The words for them.
    pub const WORDS: [&str; 2] = ["maglev", "random"];
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "maglev" => Ok(Self::Maglev),
            "random" => Ok(Self::Random),
            _ => Err(format!("{word:?} is none of {}", Self::WORDS.join(", "))),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Maglev => "maglev",
            Self::Random => "random",
        })
    }
}

/// Whether a port with these frontends has a table. Unless the Service says so, only one that
/// several nodes are reached by and choose for alike: see docs/decisions/0018.
pub(super) fn wants_table(service: &Service, frontends: &[Frontend], node: &NodeView) -> bool {
    let is_shared = |frontend: &Frontend| {
        matches!(frontend.kind, FrontendKind::External | FrontendKind::LoadBalancer)
    };
    match service.algorithm {
        Some(algorithm) => algorithm == Algorithm::Maglev,
        None => {
            let is_alike = !service.external_local && frontends.iter().any(is_shared);
            node.algorithm == Algorithm::Maglev && is_alike
        }
    }
}
