//! The commands, and what each of them needs before it starts.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::bench::{self, Scenario};
use crate::{demo, ebpf, fuzz, lint, preflight, setup, userspace};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Everything a person runs to develop lb")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile the kernel programs
    BuildEbpf {
        /// Start from nothing, even if nothing changed
        #[arg(long)]
        force: bool,
    },
    /// Compile the kernel programs and the binary `lb`
    Build {
        /// With optimization
        #[arg(long)]
        release: bool,
    },
    /// Compile an lb whose maps have another layout, for tests of upgrades by hand
    BuildNext,
    /// Build lb, then run it: `cargo xtask run -- <lb arguments>`
    Run {
        /// Handed to lb
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check format, lints, documentation and the rules of the source tree
    Lint,
    /// Run unit, property and end-to-end tests (needs root)
    Test {
        /// Repeat more often what chance may break
        #[arg(long)]
        soak: bool,
        /// Handed to `cargo test`, such as a test's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show a Service at work between real servers in network namespaces (needs root)
    Demo,
    /// Measure lb against what is in use today, in minutes (needs root)
    Bench {
        /// What is measured; everything if none is named
        #[arg(value_name = "SCENARIO")]
        scenarios: Vec<Scenario>,
        /// Fewer and shorter measurements
        #[arg(long)]
        quick: bool,
        /// Compare the reference with itself: how far the ratios are from 1 is the noise
        #[arg(long, hide = true)]
        self_check: bool,
    },
    /// Look for inputs that break what must hold
    Fuzz {
        /// What is fuzzed
        #[arg(default_value = "dns_request")]
        target: fuzz::Target,
        /// For how long, beside the build
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Ask a DNS server questions, and print how it answered, as JSON
    #[command(hide = true)]
    DnsLoad(bench::dns::load::Order),
    /// Send what a server of loads takes, and print how it went, as JSON
    #[command(hide = true)]
    Load(bench::load::Order),
    /// Take the loads of benchmarks, at one TCP and UDP port
    #[command(hide = true)]
    LoadServer(bench::load::server::Order),
}

/// Runs the command given on the command line. A command that runs another program hands on its
/// exit code.
pub(crate) fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::BuildEbpf { force } => {
            let object = ebpf::build(force)?;
            println!("kernel programs: {}", object.display());
        }
        Command::Build { release } => {
            let binary = userspace::build(release)?;
            println!("binary: {}", binary.display());
        }
        Command::BuildNext => println!("binary: {}", userspace::build_next()?.display()),
        Command::Run { arguments } => return userspace::run(&arguments),
        Command::Lint => lint::run()?,
        Command::Test { soak, arguments } => {
            preflight::kernel_and_privileges()?;
            setup::install(&setup::for_test())?;
            userspace::test(&arguments, soak)?;
        }
        Command::Demo => {
            preflight::kernel_and_privileges()?;
            setup::install(&setup::for_demo())?;
            let lb = userspace::build(false)?;
            demo::run(&lb)?;
        }
        Command::Bench { scenarios, quick, self_check } => {
            preflight::kernel_and_privileges()?;
            bench::run(&scenarios, quick, self_check)?;
        }
        Command::Fuzz { target, seconds } => {
            setup::install(&setup::for_fuzz())?;
            fuzz::run(target, seconds)?;
        }
        Command::DnsLoad(order) => bench::dns::load::run(&order)?,
        Command::Load(order) => bench::load::run(&order)?,
        Command::LoadServer(order) => bench::load::server::run(&order)?,
    }
    Ok(ExitCode::SUCCESS)
}
