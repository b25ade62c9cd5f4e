//! The workload: a process in the client's network namespace and cgroup that opens sockets as any
//! application does. `client` is the test's end, `workload` the process; they exchange one JSON
//! line per request and reply.

mod bulk;
mod client;
mod errno;
mod hold;
mod load;
mod protocol;
mod record;
mod resolve;
mod sockets;
mod workload;

pub(crate) use client::{Probe, ProbeSocket, Setup, Visit};
pub(crate) use errno::{Errno, assert_refused};
pub(crate) use hold::Held;
pub(crate) use load::Tally;
pub(crate) use protocol::Kind;
pub(crate) use record::{Record, now};
pub(crate) use workload::{MODE, run};
