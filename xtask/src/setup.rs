//! Installs what a command needs and the machine lacks: each thing once, said beforehand.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{preflight, progress, workspace};

/// Something a command needs from the system.
pub(crate) struct Need {
    /// The Debian package that brings it.
    package: String,
    /// The program by which one knows that it is there; without one, the package is asked for.
    program: Option<&'static str>,
    /// The systemd services that the package would start, on ports that may be in use.
    services: &'static [&'static str],
    why: &'static str,
    /// Roughly how long it takes to install, with what it depends on.
    seconds: u32,
}

impl Need {
    fn program(program: &'static str, package: &str, seconds: u32, why: &'static str) -> Self {
        Self { package: package.to_owned(), program: Some(program), services: &[], why, seconds }
    }

    fn package(package: &str, seconds: u32, why: &'static str) -> Self {
        Self { package: package.to_owned(), program: None, services: &[], why, seconds }
    }

    fn is_met(&self) -> bool {
        match self.program {
            Some(program) => workspace::which(program).is_some(),
            None => is_installed(&self.package),
        }
    }
}

/// What builds and enters network namespaces.
pub(crate) fn for_namespaces() -> Vec<Need> {
    vec![
        Need::program("ip", "iproute2", 10, "makes network namespaces, devices and routes"),
        Need::program("nsenter", "util-linux", 10, "enters network namespaces"),
    ]
}

/// What the end-to-end tests need.
pub(crate) fn for_test() -> Vec<Need> {
    let mut needs = for_namespaces();
    let resolver = "a resolver that shows all of an answer";
    let more = [
        Need::program("dig", "bind9-dnsutils", 10, resolver),
        Need::program("ping", "iputils-ping", 5, "pings Services"),
        Need::program("ethtool", "ethtool", 5, "turns offloads of network devices off and on"),
        Need {
            services: &["iperf3.service"],
            ..Need::program("iperf3", "iperf3", 5, "fills a connection")
        },
    ];
    needs.extend(more);
    needs
}

/// What the benchmark of DNS compares with.
pub(crate) fn for_bench_dns() -> Vec<Need> {
    let mut needs = for_namespaces();
    needs.push(Need {
        services: &["unbound.service", "unbound-resolvconf.service"],
        ..Need::program("unbound", "unbound", 15, "the DNS server to compare with")
    });
    needs
}

/// What the benchmark of forwarding compares with.
pub(crate) fn for_bench_forwarding() -> Vec<Need> {
    let mut needs = for_namespaces();
    needs.push(Need {
        services: &["nftables.service"],
        ..Need::program("nft", "nftables", 5, "translates addresses, to be compared with")
    });
    needs
}

/// What fuzz targets are linked with.
pub(crate) fn for_fuzz() -> Vec<Need> {
    vec![Need::program("c++", "g++", 20, "compiles libFuzzer, which is written in C++")]
}

/// The demo's real server and client. The `-core` packages hold the programs only; the full
/// ones would start a server of the machine's own.
pub(crate) fn for_demo() -> Vec<Need> {
    let mut needs = for_namespaces();
    needs.push(Need::program("mariadbd", "mariadb-server-core", 20, "the demo's SQL server"));
    needs.push(Need::program("mariadb", "mariadb-client-core", 10, "the demo's SQL client"));
    needs
}

/// Debian's compiler that can build for BPF: with the sources of `core`.
pub(crate) fn for_debian_rust() -> Vec<Need> {
    vec![
        Need::package("rustc-web", 60, "compiles the kernel programs"),
        Need::package("rust-web-src", 40, "the core library's source, compiled for BPF"),
    ]
}

/// The clippy of Debian's compiler.
pub(crate) fn for_debian_clippy() -> Vec<Need> {
    vec![Need::package("rust-web-clippy", 10, "checks the kernel programs")]
}

/// What bpf-linker is built from.
pub(crate) fn for_linker(llvm: u32) -> Vec<Need> {
    vec![
        Need::package(&format!("llvm-{llvm}-dev"), 60, "bpf-linker is built on this LLVM"),
        Need::program("c++", "g++", 20, "bpf-linker links LLVM's C++"),
    ]
}

/// Whether packages can be installed here at all.
pub(crate) fn has_apt() -> bool {
    workspace::which("apt-get").is_some() && workspace::which("dpkg-query").is_some()
}

/// Whether apt offers a package (or it is installed).
pub(crate) fn is_available(package: &str) -> bool {
    let policy = workspace::output(Command::new("apt-cache").args(["policy", package]));
    policy.is_some_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}

/// Installs what is missing of `needs`. Nothing missing: nothing done.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package.as_str()).collect();
    let list = packages.join(" ");
    if !has_apt() {
        bail!("missing here: {list} (Debian's package names); install them, then try again");
    }
    if preflight::root().is_err() {
        bail!("missing here: {list}; install them with `sudo apt-get install {list}`");
    }
    for need in &missing {
        eprintln!("• needs {}: {}", need.package, need.why);
    }
    progress::run(apt_get().arg("update"), "fetching Debian's lists of packages", "10 s")?;
    mask(missing.iter().flat_map(|need| need.services))?;
    let seconds: u32 = missing.iter().map(|need| need.seconds).sum();
    progress::run(
        // What the user already has stays: a conflict is an error, not a removal.
        apt_get().args(["install", "-y", "--no-install-recommends", "--no-remove"]).args(packages),
        &format!("installing {list}"),
        &format!("{seconds} s"),
    )
}

/// Keeps packages from starting services of the machine's own: only their programs are wanted.
fn mask<'a>(services: impl Iterator<Item = &'a &'static str>) -> Result<()> {
    // The test that packages make, too, before they start anything.
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    for service in services {
        eprintln!("• masking {service}: `systemctl unmask {service}` if you want to use it");
        workspace::run(Command::new("systemctl").args(["mask", service]), "systemctl mask")?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another apt may be at work, as on a machine just started.
        .args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    command
}

fn is_installed(package: &str) -> bool {
    let query = ["-W", "-f", "${db:Status-Status}", package];
    workspace::output(Command::new("dpkg-query").args(query)).as_deref() == Some("installed")
}
