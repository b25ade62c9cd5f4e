//! What lb needs from the node, and what it takes back from it.

mod bpffs;
mod cgroup;
mod check;
mod cleanup;
mod descriptors;
mod forwarding;
mod inherited;
mod kernel;
mod leaf;
mod lock;
mod mounts;
mod netlink;
mod netns;
mod ports;
mod reserved_ports;
mod resolv_conf;
mod taken_ports;

pub use bpffs::{DEFAULT_BPFFS, ensure as ensure_bpffs, is_bpffs};
pub use cgroup::{
    CgroupRoot, ExemptCgroup, MAX_EXEMPT, enter_nodes_namespace, exempt as exempt_cgroup,
    find as find_cgroup, id as cgroup_id, validate as validate_cgroup, where_processes_are,
};
pub use check::{Finding, Level, Places, check};
pub use cleanup::{Report, cleanup};
pub use descriptors::{SocketDescriptor, has_ended, numbered, socket_descriptors};
pub use forwarding::not_forwarding;
pub use inherited::Inherited;
pub use kernel::{Version, allow_locked_memory, allow_open_files, has_tcx, hostname};
pub use leaf::{Leaf, sweep_leaves};
pub use lock::{Lock, LockError, lock_file, lock_folder};
pub(crate) use mounts::mounts_of;
pub(crate) use netlink::{Netlink, NetlinkError, open_socket};
pub use netns::{netns_cookie, netns_number};
pub use ports::{PortRange, Ports};
pub use reserved_ports::{ReservedPorts, no_port_left};
pub use resolv_conf::{ETC_NETNS, NetnsName, ResolvConfs};
pub use taken_ports::taken_ports;
