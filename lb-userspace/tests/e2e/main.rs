//! End-to-end tests: the real binary `lb`, real sockets, loaded programs.
//!
//! Every test has a [`harness::Stage`] of its own: a client's and a server's network namespace, a
//! cgroup, an agent attached to that cgroup alone. So tests run in parallel, and beside an agent
//! that serves the machine. `harness` sets the stage, `probe` is the workload (this same binary,
//! run again inside the client's namespace and cgroup), every other module is one topic's tests.
//!
//! They need root. `LB_E2E=skip` skips them where there is none. `LB_CAPTURE=1` keeps the packets that the node of a failing
//! test of the packet path saw, as `target/tmp/e2e-*.pcap`.

mod harness;
mod probe;

mod affinity;
mod apiserver;
mod capabilities;
mod changes;
mod churn;
mod client;
mod closing;
mod crowd;
mod devices;
mod endpoints;
mod exempt;
mod external;
mod families;
mod flows;
mod health_checks;
mod inherited;
mod input;
mod kills;
mod kubernetes;
mod lifecycle;
mod local_sources;
mod manifests;
mod names;
mod node_ports;
mod outside;
mod own_sockets;
mod packets;
mod reclaim;
mod refusals;
mod restart;
mod self_connection;
mod selftest;
mod siblings;
mod sizes;
mod slots;
mod snat_ports;
mod sockets;
mod startup;
mod tcp;
mod udp;
mod upgrade;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(probe::MODE) => return probe::run(arguments),
        Some(harness::process::MODE) => return harness::process::run(arguments),
        Some(harness::container::MODE) => return harness::container::run(arguments),
        Some(inherited::MODE) => return inherited::run(),
        Some(harness::janitor::MODE) => return harness::janitor::run(arguments),
        _ => {}
    }

    let arguments = Arguments::from_args();
    if std::env::var_os("LB_E2E").is_some_and(|value| value == "skip") {
        eprintln!("e2e: skipped, as LB_E2E=skip asks");
        return ExitCode::SUCCESS;
    }
    if !arguments.list
        && let Err(problem) = harness::sandbox::enter()
    {
        eprintln!("e2e: {problem}");
        return ExitCode::FAILURE;
    }
    harness::report::install();
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<libtest_mimic::Trial> {
    [
        selftest::tests(),
        apiserver::tests(),
        tcp::tests(),
        udp::tests(),
        families::tests(),
        node_ports::tests(),
        external::tests(),
        outside::tests(),
        refusals::tests(),
        sockets::tests(),
        slots::tests(),
        endpoints::tests(),
        changes::tests(),
        manifests::tests(),
        names::tests(),
        input::tests(),
        client::tests(),
        startup::tests(),
        restart::tests(),
        upgrade::tests(),
        self_connection::tests(),
        sizes::tests(),
        closing::tests(),
        reclaim::tests(),
        lifecycle::tests(),
        capabilities::tests(),
        siblings::tests(),
        churn::tests(),
        kills::tests(),
        crowd::tests(),
        affinity::tests(),
        devices::tests(),
        flows::tests(),
        exempt::tests(),
        local_sources::tests(),
        inherited::tests(),
        own_sockets::tests(),
        packets::tests(),
        snat_ports::tests(),
        health_checks::tests(),
        kubernetes::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
