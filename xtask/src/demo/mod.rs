//! The demo: a Service at work between real servers, with a stage of its own – namespaces,
//! cgroup, folder – so that it neither sees nor touches other traffic of the machine.
//!
//! `story` tells it on a [`stage`](crate::stage), `mariadb` acts.

mod mariadb;
mod story;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::stage::process;

/// Shows the whole story with this `lb`, and takes everything down, whatever happens.
pub(crate) fn run(lb: &Path) -> Result<()> {
    process::catch_interrupts()?;
    let started = Instant::now();
    story::tell(lb)?;
    println!(
        "\ndemo: every step was seen to work, in {:.1} s; nothing is left behind",
        started.elapsed().as_secs_f32()
    );
    Ok(())
}
