//! Where plans go: the datapath, or in the engine's own tests a table that records them.

use std::time::Duration;

use crate::datapath::{Change, Datapath, Refused, Status};
use crate::host::ExemptCgroup;

/// What the engine asks of a datapath.
pub(super) trait Sink: 'static {
    /// As [`Datapath::apply`].
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused>;
    /// As [`Datapath::has_adopted`].
    fn has_adopted(&self) -> bool;
    /// As [`Datapath::prune`].
    fn prune(&mut self);
    /// As [`Datapath::exempt`].
    fn exempt(&mut self, cgroups: Vec<ExemptCgroup>);
    /// As [`Datapath::upkeep`].
    fn upkeep(&mut self) -> Option<Duration> {
        None
    }
    /// As [`Datapath::status`].
    fn status(&self) -> Status;
}

impl Sink for Datapath {
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused> {
        Self::apply(self, changes)
    }

    fn has_adopted(&self) -> bool {
        Self::has_adopted(self)
    }

    fn prune(&mut self) {
        Self::prune(self);
    }

    fn exempt(&mut self, cgroups: Vec<ExemptCgroup>) {
        Self::exempt(self, cgroups);
    }

    fn upkeep(&mut self) -> Option<Duration> {
        Self::upkeep(self)
    }

    fn status(&self) -> Status {
        Self::status(self)
    }
}
