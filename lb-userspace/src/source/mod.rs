//! What comes from outside, besides `lb apply`: folders of manifests, cgroups to be left alone, this
//! node's addresses and network devices, and what leads to its workloads.

mod addresses;
mod announcements;
mod device;
mod devices;
mod events;
mod exempt;
mod file;
mod folder;
pub mod kubernetes;
mod local_sources;
mod manifests;
mod route;

/// In place of a manifest file's path, the source of what the agent brings itself.
pub const OWN: &str = "the agent itself";

pub use addresses::Addresses;
pub use devices::{Devices, Pattern};
pub use exempt::{exempt, look as look_exempt};
pub use file::{MAX_SIZE, is_manifest, read_bounded};
pub(crate) use folder::object_json;
pub use local_sources::LocalSources;
pub use manifests::manifests;
