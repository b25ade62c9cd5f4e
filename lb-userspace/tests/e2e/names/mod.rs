//! Names end to end: real resolvers ask the server's ClusterIP, through the load balancer itself.

mod forward;
mod input;
mod records;
mod restart;

use libtest_mimic::Trial;

pub(crate) fn tests() -> Vec<Trial> {
    [records::tests(), forward::tests(), input::tests(), restart::tests()]
        .into_iter()
        .flatten()
        .collect()
}
