//! `lb cleanup`: the node as it was.

use std::io::Write;

use anyhow::Result;
use clap::Args;

use super::Done;
use super::args::PlacesArgs;
use super::output::Out;
use crate::host::{self, Report};

#[derive(Args, Debug)]
pub(super) struct CleanupArgs {
    /// Also delete the stored objects and their addresses
    #[arg(long)]
    state: bool,
    #[command(flatten)]
    places: PlacesArgs,
}

pub(super) fn run(args: &CleanupArgs, out: &mut Out) -> Done {
    let report = host::cleanup(&args.places.places()?, args.state)?;
    print(&report, out)?;
    Ok(true)
}

fn print(report: &Report, out: &mut Out) -> Result<()> {
    if report.pins > 0 {
        writeln!(out, "detached the programs and removed {} pins", report.pins)?;
    }
    if report.devices > 0 {
        writeln!(out, "removed the filters from {} network devices", report.devices)?;
    }
    for path in &report.removed {
        writeln!(out, "removed {}", path.display())?;
    }
    if let Some(point) = &report.unmounted {
        writeln!(out, "unmounted the BPF file system that lb had mounted on {}", point.display())?;
    }
    if let Some(ports) = &report.released {
        writeln!(out, "took the ports {ports} out of net.ipv4.ip_local_reserved_ports")?;
    }
    let Report { pins, devices, removed, unmounted, released, kept_state: _ } = report;
    let nothing = *pins == 0 && *devices == 0 && removed.is_empty();
    if nothing && unmounted.is_none() && released.is_none() {
        writeln!(out, "nothing to clean up")?;
    }
    if let Some(state) = &report.kept_state {
        writeln!(
            out,
            "kept {} (your objects and their addresses); lb cleanup --state removes it too",
            state.display()
        )?;
    }
    Ok(())
}
