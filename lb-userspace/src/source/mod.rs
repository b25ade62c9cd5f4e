//! What comes from outside, besides `lb apply`: folders of manifests, cgroups to be left alone, and
//! this node's addresses.

mod addresses;
mod events;
mod exempt;
mod file;
mod folder;
mod manifests;

pub use addresses::Addresses;
pub use exempt::{exempt, look as look_exempt};
pub use file::{MAX_SIZE, is_manifest, read_bounded};
pub(crate) use folder::object_json;
pub use manifests::manifests;
