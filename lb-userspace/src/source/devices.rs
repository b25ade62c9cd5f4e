//! The network devices whose packets are translated, by rtnetlink(7), in the network namespace that
//! the agent runs in.

mod pattern;
mod select;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::watch;

pub use self::pattern::Pattern;
use self::select::Seen;
use super::announcements::{ADDRESSES, Announcements, LINKS, ROUTES};
use super::route::WORLD;
use super::{device, route};
use crate::datapath;
use crate::engine::Engine;
use crate::host::{Netlink, NetlinkError};

/// At most so large a part of a processor's time is spent on looking, however much is announced: a
/// router's table may have a million routes, and change all the time.
const PAUSES_PER_LOOK: u32 = 10;

/// The shortest pause, as devices and routes come in bursts, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(10)];

/// The devices that are chosen, and how they change.
#[derive(Debug)]
pub struct Devices {
    announcements: Announcements,
    /// None chooses by what the devices are.
    patterns: Vec<Pattern>,
}

impl Devices {
    /// Changes from now on will be noticed.
    pub fn subscribe(patterns: Vec<Pattern>) -> Result<Self> {
        let announcements = Announcements::subscribe(LINKS | ROUTES | ADDRESSES)
            .context("following this node's network devices")?;
        Ok(Self { announcements, patterns })
    }

    /// The devices as they are now.
    pub fn list(&self) -> Result<datapath::Devices> {
        self.look()
            .context("this node's network devices cannot be listed; --no-packet-path does without")
    }

    /// Tells the engine of changes until `stop` becomes true.
    pub async fn follow(self, engine: Engine, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut pause = Duration::ZERO;
        loop {
            let next = async {
                tokio::time::sleep(pause).await;
                self.announcements.next().await
            };
            tokio::select! {
                changed = next => changed.context("following this node's network devices")?,
                // An error means that the sender is gone, which is a stop as well.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
            let start = Instant::now();
            let listed = self.list();
            pause = (start.elapsed() * PAUSES_PER_LOOK).clamp(PAUSES[0], PAUSES[1]);
            match listed {
                // Told even if nothing differs: a device may be another of the same name and index.
                Ok(devices) => engine.devices(devices).await,
                Err(error) => tracing::error!("{error:#}; the programs stay where they are"),
            }
        }
    }

    fn look(&self) -> Result<datapath::Devices, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let devices = device::list(&mut netlink)?;
        let routes = route::list(&mut netlink)?;
        let mut sources = Vec::new();
        for world in WORLD {
            sources.extend(route::source(&mut netlink, world)?);
        }
        let seen = Seen { devices, routes };
        let selected = seen.select(&self.patterns);
        let unseen = seen.unseen(&selected);
        Ok(datapath::Devices { selected, unseen, sources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_never_chosen() {
        let all = vec!["*".parse().expect("a pattern")];
        for patterns in [Vec::new(), all] {
            let devices = Devices::subscribe(patterns).expect("a socket");
            let listed = devices.list().expect("a listing");
            assert!(listed.selected.iter().all(|device| device.name != "lo"), "{listed:?}");
            assert!(listed.unseen.iter().all(|name| name != "lo"), "{listed:?}");
        }
    }
}
