//! What comes from outside, besides `lb apply`: folders of manifests, cgroups to be left alone, this
//! node's addresses, and what leads to its workloads.

mod addresses;
mod events;
mod exempt;
mod file;
mod folder;
mod local_sources;
mod manifests;
mod netlink;

pub use addresses::Addresses;
pub use exempt::{exempt, look as look_exempt};
pub use file::{MAX_SIZE, is_manifest, read_bounded};
pub(crate) use folder::object_json;
pub use local_sources::LocalSources;
pub use manifests::manifests;
