//! `lb self-test-visit`: the agent runs it at its start; see [`crate::datapath`]'s self-test.

use std::io::Write;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::Done;
use super::output::Out;
use crate::datapath;

#[derive(Args, Debug)]
pub(super) struct SelfTestArgs {
    leaf: PathBuf,
    frontend: SocketAddrV4,
}

pub(super) fn run(args: &SelfTestArgs, out: &mut Out) -> Done {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let visit = datapath::visit(&args.leaf, args.frontend)?;
    serde_json::to_writer(&mut *out, &visit)?;
    out.flush()?;
    Ok(true)
}
