//! Everything a person runs to develop lb. Each command does the set-up it needs: on a fresh
//! Debian 12 with a Rust toolchain, `cargo xtask demo` or `cargo xtask test` is the first command.

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod demo;
#[cfg(target_os = "linux")]
mod ebpf;
#[cfg(target_os = "linux")]
mod fuzz;
#[cfg(target_os = "linux")]
mod lint;
#[cfg(target_os = "linux")]
mod preflight;
#[cfg(target_os = "linux")]
mod progress;
#[cfg(target_os = "linux")]
mod setup;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod userspace;
#[cfg(target_os = "linux")]
mod workspace;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("error: lb is built and run on Linux only; use a Linux machine or virtual machine");
    std::process::ExitCode::FAILURE
}
