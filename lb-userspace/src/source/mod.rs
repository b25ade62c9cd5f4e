//! Where objects come from, besides `lb apply`: folders of manifests.

mod events;
mod file;
mod folder;
mod manifests;

pub use file::{MAX_SIZE, is_manifest, read_bounded};
pub(crate) use folder::object_json;
pub use manifests::manifests;
