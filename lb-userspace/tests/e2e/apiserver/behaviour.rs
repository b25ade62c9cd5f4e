//! What kind of server it is, and what is wrong with it at the moment.

use std::time::Duration;

use super::resource::Resource;

/// Everything that can be switched while the server runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    pub(crate) streaming_lists: StreamingLists,
    pub(crate) expired: Expired,
    /// As of a server before Kubernetes 1.33: it has no ServiceCIDRs.
    pub(crate) no_service_cidrs: bool,
    /// Bookmarks without being asked, so far apart.
    pub(crate) bookmarks: Option<Duration>,
    /// How long each answer takes.
    pub(crate) delay: Duration,
    pub(crate) streams: Streams,
    /// Requests that are answered otherwise; the first that fits counts.
    pub(crate) instead: Vec<Instead>,
}

/// How lists by way of a watch (`sendInitialEvents`) are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamingLists {
    #[default]
    Served,
    /// Kubernetes 1.27 to 1.31, whose feature gate is closed.
    Refused,
    /// Kubernetes before 1.27, which does not know the parameter.
    Ignored,
}

/// How a watch from a forgotten version is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Expired {
    /// By an event in a stream that has begun, as the watch cache does.
    #[default]
    InStream,
    /// By HTTP's 410.
    AtOnce,
}

/// How watches go, those that are open as well as new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Streams {
    #[default]
    Well,
    /// Each ends so long after its begin: in order, or by a connection that breaks.
    Cut { after: Duration, clean: bool },
    /// Nothing comes any more, not even an end.
    Stalled,
    /// So many bytes come at a time.
    Trickling { bytes: usize, pause: Duration },
}

/// What happens once to every open watch of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It ends in order.
    End,
    /// The connection breaks.
    Break,
    /// The next event breaks off in its middle.
    HalfLine,
    /// A line that is no JSON.
    Garbage,
    /// An event that says 410, and the end.
    Expired,
}

/// A wrong answer, so many times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instead {
    /// To requests of what; `None` is all.
    pub(crate) resource: Option<Resource>,
    pub(crate) answer: Answer,
    pub(crate) times: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Forbidden,
    /// 429, to come again after so many seconds.
    TooMany(u32),
    Internal,
    Unavailable,
    /// None, ever.
    Nothing,
}

impl Behaviour {
    /// Answers every request of a resource, or all requests, otherwise.
    pub(crate) fn always(&mut self, resource: impl Into<Option<Resource>>, answer: Answer) {
        self.instead.push(Instead { resource: resource.into(), answer, times: usize::MAX });
    }

    /// Answers the next request of a resource, or of any, otherwise.
    pub(crate) fn once(&mut self, resource: impl Into<Option<Resource>>, answer: Answer) {
        self.instead.push(Instead { resource: resource.into(), answer, times: 1 });
    }

    /// The wrong answer that a request of this resource gets.
    pub(super) fn take(&mut self, resource: Resource) -> Option<Answer> {
        let fits =
            |it: &&mut Instead| it.times > 0 && it.resource.is_none_or(|its| its == resource);
        let instead = self.instead.iter_mut().find(fits)?;
        instead.times = instead.times.saturating_sub(usize::from(instead.times != usize::MAX));
        Some(instead.answer)
    }
}
