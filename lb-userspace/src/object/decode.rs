//! Manifests to objects: multi-document YAML or JSON, each document on its own.

use super::Object;

/// Where a document or an error stands. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// File name as the person gave it; `-` is standard input.
    pub file: String,
    /// Line in that file.
    pub line: usize,
    /// Column in that line; 0 where only the line is known.
    pub column: usize,
}

/// A manifest document that became an object.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it begins.
    pub position: Position,
    /// The object, with `namespace` left as written.
    pub object: Object,
    /// Things worth saying that stop nothing, such as unknown fields.
    pub warnings: Vec<String>,
}

/// A document that did not become an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not YAML, or not the shape of its kind. Message without position.
    #[error("{}:{}:{}: {message}", position.file, position.line, position.column)]
    Malformed {
        /// Where.
        position: Position,
        /// What, naming object and field where known, and the remedy.
        message: String,
    },
    /// Well-formed, but a kind that lb does not serve: named and skipped.
    #[error("{}:{}: {kind} \"{name}\" ({api_version}) is not a kind that lb serves; skipped",
        position.file, position.line)]
    Unserved {
        /// Where.
        position: Position,
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// One document's result.
pub type Decoded = Result<Document, Problem>;

/// Decodes every document of `bytes`; a bad one never hides its neighbours. `v1` Lists are flattened.
pub fn decode(_bytes: &[u8], _file: &str) -> Vec<Decoded> {
    Vec::new()
}
