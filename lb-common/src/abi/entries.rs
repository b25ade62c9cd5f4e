//! How many entries each table has unless the agent is told otherwise: enough for 65,536 service
//! ports with 262,144 endpoints in all, and for as many sockets at once as `ORIGIN` has.

/// Of `FRONTENDS`: each port of each address, and each address.
pub const FRONTENDS: u32 = 131_072;
/// Of `SERVICES`: each port of each family, and each Service's addresses themselves.
pub const SERVICES: u32 = 131_072;
/// Of `RUNS`: a service's old and next endpoints at once.
pub const RUNS: u32 = 524_288;
/// Of `BACKENDS`.
pub const BACKENDS: u32 = 262_144;
/// Of `AFFINITY`: clients of Services that have it.
pub const AFFINITY: u32 = 65_536;
/// Of `EXEMPT`: cgroups that are left alone.
pub const EXEMPT: u32 = 1024;
/// Of `ORIGIN`; a power of two.
pub const ORIGIN: u32 = 131_072;
/// Of `FLOWS`: two for each connection, four where the node stands in for the client.
pub const FLOWS: u32 = 262_144;
/// Of `FRAGMENTS`: packets whose fragments are on their way.
pub const FRAGMENTS: u32 = 8192;
/// Tables in `MAGLEV`.
pub const MAGLEV: u32 = 256;
/// Of `SOURCE_RANGES`: each range of each port.
pub const SOURCE_RANGES: u32 = 65_536;
/// Of `DEVICES`: network devices with our programs.
pub const DEVICES: u32 = 4096;
