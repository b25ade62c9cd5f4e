//! What a test needs around the binary under test: namespaces, pods, an agent, and a report when
//! something does not hold.

pub(crate) mod agent;
pub(crate) mod capture;
pub(crate) mod cgroup;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod container;
pub(crate) mod echo;
pub(crate) mod frames;
pub(crate) mod janitor;
pub(crate) mod lan;
pub(crate) mod manifest;
pub(crate) mod maps;
pub(crate) mod names;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod refuser;
pub(crate) mod report;
pub(crate) mod sandbox;
pub(crate) mod stage;
pub(crate) mod statistics;
pub(crate) mod status;
pub(crate) mod tun;
pub(crate) mod wait;

pub(crate) use agent::Agent;
pub(crate) use cluster::{Cluster, NODE};
pub(crate) use command::Output;
pub(crate) use echo::Listen;
pub(crate) use lan::Lan;
pub(crate) use manifest::{Pod, service};
pub(crate) use stage::Stage;
pub(crate) use wait::{PATIENCE, eventually, within};

/// How often a test repeats what chance may break: `long` with `cargo xtask test --soak`.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("LB_SOAK").is_some() { long } else { short }
}

/// One test module's tests, each under the name `module::function`.
macro_rules! cases {
    ($($test:ident),+ $(,)?) => {
        vec![$($crate::harness::report::trial(
            concat!(module_path!(), "::", stringify!($test)),
            $test,
        )),+]
    };
}
pub(crate) use cases;
