//! The command line: `lb agent` and the commands that ask it, in the manner of kubectl.

mod age;
mod agent;
mod apply;
mod args;
mod check;
mod cleanup;
mod close;
mod columns;
mod delete;
#[cfg(test)]
mod deployed;
mod describe;
mod devices;
mod dns;
mod flows;
mod get;
mod input;
mod output;
mod resolv_conf;
mod self_test;
mod status;
mod table;
mod watch;
mod yaml;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use output::Out;

/// Gives every Kubernetes Service of this node a stable virtual address, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "lb", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as lb_userspace::source=debug
    #[arg(long, global = true, env = "LB_LOG", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node agent
    Agent(Box<agent::AgentArgs>),
    /// Create or change objects from manifests
    Apply(apply::ApplyArgs),
    /// Delete objects by manifest or by name
    Delete(delete::DeleteArgs),
    /// List objects
    Get(get::GetArgs),
    /// Show a Service with its endpoints
    Describe(describe::DescribeArgs),
    /// Show what the agent does, and what it could not do
    Status(status::StatusArgs),
    /// Close sockets whose backends are gone, as the agent does by itself
    Close(close::CloseArgs),
    /// Print the resolver configuration for a pod, or install it for a network namespace
    ResolvConf(resolv_conf::ResolvConfArgs),
    /// Say what this node has, what it lacks, and what is lost without it
    Check(check::CheckArgs),
    /// Leave the node as it was before lb
    Cleanup(cleanup::CleanupArgs),
    /// Make the connection of an agent's self-test
    #[command(name = crate::datapath::SELF_TEST, hide = true)]
    SelfTest(self_test::SelfTestArgs),
}

/// What a command ends with when it did not break off: whether everything asked for was done.
type Done = Result<bool>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::stdout();
    let done = log_to_stderr(&cli.log_level)
        .and_then(|()| run(cli.command, &mut out))
        .and_then(|done| Ok(out.flush().map(|()| done)?));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `lb get … | head` has all it wants.
        Err(error) if output::reader_is_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, out: &mut Out) -> Done {
    match command {
        Command::Agent(args) => wait_for(agent::run(*args)),
        Command::Apply(args) => wait_for(apply::run(args, out)),
        Command::Delete(args) => wait_for(delete::run(args, out)),
        Command::Get(args) => wait_for(get::run(args, out)),
        Command::Describe(args) => wait_for(describe::run(args, out)),
        Command::Status(args) => wait_for(status::run(args, out)),
        Command::Close(args) => wait_for(close::run(args, out)),
        Command::ResolvConf(args) => wait_for(resolv_conf::run(args, out)),
        Command::Check(args) => check::run(&args, out),
        Command::Cleanup(args) => cleanup::run(&args, out),
        Command::SelfTest(args) => self_test::run(&args, out),
    }
}

fn wait_for(command: impl Future<Output = Done>) -> Done {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime could be started")?
        .block_on(command)
}

fn log_to_stderr(filter: &str) -> Result<()> {
    let meant = filter.contains(['=', ',']) || filter.parse::<LevelFilter>().is_ok();
    ensure!(meant, "--log-level {filter}: levels are error, warn, info, debug, trace and off");
    // A watch that breaks is nothing to tell a person; kube-rs warns of each.
    let is_usual = ["warn", "info"].contains(&filter.to_lowercase().as_str());
    let quiet = if is_usual { ",kube_client=error" } else { "" };
    let filter = EnvFilter::builder()
        .parse(format!("{filter}{quiet}"))
        .with_context(|| format!("--log-level {filter} is neither a level nor a filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_surface_relied_upon_from_outside_parses() {
        for line in [
            "lb agent",
            "lb agent --manifests a --manifests b --state-dir s --run-dir r --bpffs p --cgroup c \
             --service-cidr 10.96.0.0/12,fd00:10:96::/112 --node-name n --cluster-domain cluster.local \
             --close-tcp --reclaim-after 5 --no-dns \
             --nodeport-addresses 10.0.0.0/8,fd00::/8 --service-proxy-name p",
            "lb agent --dns-listen 10.0.0.1:5353,[fd00::1]:5353 --dns-allow 10.0.0.0/8 --dns-upstream 9.9.9.9 --dns-ttl 30",
            "lb agent --map-size RUNS=1048576,ORIGIN=1024 --map-size SERVICES=1000",
            "lb agent --device eth0 --device tap* --device bond?,br-*",
            "lb agent --no-packet-path",
            "lb agent --tc-attach netlink",
            "lb agent --snat-ports 40000-65535",
            "lb apply -f file.yaml",
            "lb apply -f - --dry-run --strict --run-dir r",
            "lb apply -f a -f b -n space",
            "lb delete -f file.yaml",
            "lb delete svc mysql -n space",
            "lb get svc",
            "lb get endpointslices -A -o wide",
            "lb get pods web -n space -o yaml",
            "lb get svc mysql -o name -w --run-dir r",
            "lb describe svc mysql",
            "lb status -o json",
            "lb resolv-conf",
            "lb resolv-conf -n space --run-dir r",
            "lb resolv-conf --netns pod-1 -n space",
            "lb resolv-conf --netns pod-1 --remove --run-dir r",
            "lb check",
            "lb close",
            "lb close --tcp --dry-run -o json --run-dir r",
            "lb cleanup --run-dir r --state-dir s --bpffs p --cgroup c",
        ] {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(parses(&line), "{line}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "lb apply",
            "lb delete",
            "lb delete -f a svc mysql",
            "lb get",
            "lb get svc -n a -A",
            "lb get svc -o xml",
            "lb resolv-conf --remove",
            "lb resolv-conf --netns a/b",
            "lb resolv-conf -n Not.A.Label",
            "lb resolv-conf --netns a --remove -n b",
            "lb agent --service-cidr 10.96.0.1/12",
            "lb agent --map-size RUNS=1",
            "lb agent --device eth0 --no-packet-path",
            "lb agent --device a-name-of-sixteen",
            "lb agent --dns-ttl 31",
            "lb agent --snat-ports 30000-40000",
            "lb agent --dns-listen 5353",
            "lb agent --cluster-domain -x",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
