//! Fuzzing: libFuzzer looks for inputs that take new ways through the code, and for one that breaks
//! what must hold. rustc can instrument code for it by itself.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{userspace, workspace};

/// What rustc is told: LLVM's pass for coverage, with all that libFuzzer of `libfuzzer-sys` reads.
const INSTRUMENTATION: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What can be fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Packets for the DNS server
    #[value(name = "dns_request")]
    DnsRequest,
}

impl Target {
    /// The name of its program and of its corpus.
    fn name(self) -> &'static str {
        match self {
            Self::DnsRequest => "dns_request",
        }
    }
}

/// Builds a target, and looks for such inputs for so many seconds. One that is found is an error.
pub(crate) fn run(target: Target, seconds: u64) -> Result<()> {
    let name = target.name();
    let program = build(name)?;
    let found = workspace::target_dir().join("fuzzing").join("found").join(name);
    let broken = workspace::target_dir().join("fuzzing").join("broken").join(name);
    for folder in [&found, &broken] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let kept = workspace::root().join("fuzz").join("corpus").join(name);
    let mut fuzzer = Command::new(program);
    fuzzer
        // What is found goes to the first of the folders.
        .args([&found, &kept])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        // Seconds, bytes and megabytes for one input.
        .args(["-timeout=5", "-max_len=4096", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    workspace::run(&mut fuzzer, &format!("fuzzing {name}")).with_context(|| {
        format!(
            "an input that breaks what must hold is the newest in {} (give it a name that says what \
             it is, and put it into {}: then it is a test)",
            broken.display(),
            kept.display()
        )
    })
}

/// Compiles a target with all that it calls, instrumented.
fn build(name: &str) -> Result<PathBuf> {
    let host = host()?;
    let mut cargo = userspace::cargo("build")?;
    cargo
        .args(["-p", "lb-fuzz", "--bin", name, "--features", "targets"])
        // With a target given, what runs during the build is not instrumented.
        .args(["--target", &host, "--profile", "fuzz"])
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\x1f"));
    workspace::run(&mut cargo, "building the fuzz target")?;
    Ok(workspace::target_dir().join(host).join("fuzz").join(name))
}

/// The target that the compiler builds for by default.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = workspace::output(Command::new(rustc).arg("-vV")).unwrap_or_default();
    let Some(host) = version.lines().find_map(|line| line.strip_prefix("host: ")) else {
        bail!("rustc -vV names no host: {version:?}");
    };
    Ok(host.to_owned())
}
