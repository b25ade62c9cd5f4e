//! What comes from outside, besides `lb apply`: folders of manifests, cgroups to be left alone.

mod events;
mod exempt;
mod file;
mod folder;
mod manifests;

pub use exempt::{exempt, look as look_exempt};
pub use file::{MAX_SIZE, is_manifest, read_bounded};
pub(crate) use folder::object_json;
pub use manifests::manifests;
