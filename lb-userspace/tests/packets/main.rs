//! The packet path in the kernel: what the loaded programs do to packets, by `BPF_PROG_TEST_RUN`, is what the same
//! decisions do on the host, byte for byte, and moves the same counters.
//!
//! They need root. `LB_E2E=skip` skips them where there is none. `LB_PACKETS` is the number of random packets, `LB_SEED` the seed
//! that a failure has named: it sends the same ones again.

mod capture;
mod cases;
mod kernel;
mod node;
mod observed;
mod random;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Entries of `FLOWS`.
const FLOWS: u32 = 65_536;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if std::env::var_os("LB_E2E").is_some_and(|value| value == "skip") {
        eprintln!("packets: skipped, as LB_E2E=skip asks");
        return ExitCode::SUCCESS;
    }
    let trials = [
        Trial::test("packets::every_case_in_the_kernel_is_as_on_the_host", cases::run),
        Trial::test(
            "packets::every_case_is_so_where_the_kernel_cannot_tell_the_nodes_address",
            cases::run_as_on_older_kernels,
        ),
        Trial::test("packets::random_packets_in_the_kernel_are_as_on_the_host", random::run),
    ];
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
