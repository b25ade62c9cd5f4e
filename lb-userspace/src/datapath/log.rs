//! The kernel programs' own log, handed to the agent's.

use std::thread;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::{EbpfLogger, Level};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::level_filters::LevelFilter;

/// What the programs log follows what the agent logs. Below that, the verifier removes their log
/// statements.
pub(super) fn level() -> u8 {
    let level = LevelFilter::current().into_level();
    level.map_or(0, |level| match level {
        tracing::Level::ERROR => Level::Error as u8,
        tracing::Level::WARN => Level::Warn as u8,
        tracing::Level::INFO => Level::Info as u8,
        tracing::Level::DEBUG => Level::Debug as u8,
        tracing::Level::TRACE => Level::Trace as u8,
    })
}

/// Copies the programs' records to the agent's log, in a thread that sleeps while there are none.
pub(super) fn follow(ebpf: &mut Ebpf) -> Result<()> {
    let mut logger = EbpfLogger::init(ebpf).context("the programs' log")?;
    thread::Builder::new()
        .name("program-log".into())
        .spawn(move || {
            loop {
                let mut ready = [PollFd::new(&logger, PollFlags::IN)];
                // An interrupted poll is as good as a finished one: there may be nothing to flush.
                let _ready_or_interrupted = poll(&mut ready, None);
                logger.flush();
            }
        })
        .context("the programs' log")?;
    Ok(())
}
