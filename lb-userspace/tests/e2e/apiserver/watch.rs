//! Watches: one JSON object a line, until somebody ends it.
//!
//! What the parameters mean: "Semantics for watch" and "Streaming lists" of the API concepts, and
//! apiserver/pkg/storage/cacher/cacher.go.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until};

use super::behaviour::{Expired, Mishap, StreamingLists, Streams};
use super::list;
use super::resource::{Resource, Target};
use super::selector::Selector;
use super::state::{Shared, State};
use super::status::Status;

/// One open watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    changed: Receiver<()>,
    resource: Resource,
    selector: Selector,
    wants_bookmarks: bool,
    started: Instant,
    /// When the client wants it to end.
    timeout: Option<Instant>,
    last_bookmark: Instant,
    /// Up to which version the client knows all.
    version: u64,
    /// Bookmarks and mishaps of the past.
    bookmarks: usize,
    mishaps: usize,
    lines: VecDeque<Bytes>,
    /// What is left of a line that trickles.
    rest: Bytes,
    /// The next event breaks off in its middle.
    halve: bool,
    /// How it ends when all lines are sent.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Clean,
    Break,
}

/// What a watch does next.
enum Step {
    Send(Bytes),
    End(End),
    /// Until something changes, or this moment.
    Wait(Option<Instant>),
}

impl Watch {
    /// Begins the watch that a request asks for.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        target: &Target,
        query: &BTreeMap<String, String>,
    ) -> Result<Self, Box<Status>> {
        let text = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
        // Before the state is read: what changes from here on wakes the watch.
        let changed = shared.changes();
        let state = shared.state();
        let streaming = state.behaviour.streaming_lists;
        check(query, streaming)?;
        let initial = match (text("sendInitialEvents"), streaming) {
            (_, StreamingLists::Ignored) | ("", _) => None,
            (word, _) => Some(word == "true"),
        };
        let from = list::version(text("resourceVersion"))?;
        let seconds = text("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0);
        let started = Instant::now();
        let mut watch = Self {
            shared: Arc::clone(shared),
            changed,
            resource: target.resource,
            selector: Selector::of(target, query)?,
            wants_bookmarks: text("allowWatchBookmarks") == "true",
            started,
            timeout: seconds.map(|seconds| started + Duration::from_secs(seconds)),
            last_bookmark: started,
            version: from.unwrap_or(0),
            bookmarks: state.bookmarks,
            mishaps: state.mishaps.len(),
            lines: VecDeque::new(),
            rest: Bytes::new(),
            halve: false,
            end: None,
        };
        watch.start(&state, initial)?;
        drop(state);
        Ok(watch)
    }

    fn start(&mut self, state: &State, initial: Option<bool>) -> Result<(), Box<Status>> {
        let current = state.store.version;
        match initial {
            Some(_) if self.version > current => {
                return Err(Status::too_large(self.version, current));
            }
            Some(true) => {
                self.send_current(state);
                self.send_bookmark(true);
            }
            Some(false) if self.version == 0 => self.version = current,
            // Without a version, or from any: the state, then what changes.
            None if self.version == 0 => self.send_current(state),
            Some(false) | None => {
                let is_known = state.store.since(self.version).is_ok();
                if !is_known && state.behaviour.expired == Expired::AtOnce {
                    return Err(self.too_old(state));
                }
            }
        }
        Ok(())
    }

    /// The next bytes of the answer.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let until = match self.step() {
                Step::Send(bytes) => match self.trickle(bytes).await {
                    bytes if bytes.is_empty() => continue,
                    bytes => return Some(Ok(bytes)),
                },
                Step::End(End::Clean) => return None,
                Step::End(End::Break) => return Some(Err(io::ErrorKind::ConnectionReset.into())),
                Step::Wait(until) => until,
            };
            let moment = async {
                match until {
                    Some(moment) => sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = moment => {}
            }
        }
    }

    /// The part of the bytes that may go now; keeps the rest.
    async fn trickle(&mut self, mut bytes: Bytes) -> Bytes {
        let streams = self.shared.state().behaviour.streams;
        if let Streams::Trickling { bytes: few, pause } = streams {
            sleep(pause).await;
            self.rest = bytes.split_off(few.min(bytes.len()));
        }
        bytes
    }

    fn step(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        self.changed.borrow_and_update();
        let behaviour = &state.behaviour;
        if behaviour.streams == Streams::Stalled {
            return Step::Wait(None);
        }
        if let Some(end) = self.due(behaviour.streams) {
            return Step::End(end);
        }
        if !self.rest.is_empty() {
            return Step::Send(std::mem::take(&mut self.rest));
        }
        self.suffer(&state);
        self.send_changes(&state);
        if let Some(line) = self.lines.pop_front() {
            if !self.halve {
                return Step::Send(line);
            }
            (self.halve, self.end) = (false, Some(End::Break));
            self.lines.clear();
            return Step::Send(line.slice(..line.len() / 2));
        }
        if let Some(end) = self.end {
            return Step::End(end);
        }
        self.idle(behaviour.streams, behaviour.bookmarks)
    }

    /// When somebody else than the server ends it, and how.
    fn ends(&self, streams: Streams) -> impl Iterator<Item = (Instant, End)> {
        let cut = match streams {
            Streams::Cut { after, clean } => {
                Some((self.started + after, if clean { End::Clean } else { End::Break }))
            }
            Streams::Well | Streams::Stalled | Streams::Trickling { .. } => None,
        };
        [cut, self.timeout.map(|moment| (moment, End::Clean))].into_iter().flatten()
    }

    fn due(&self, streams: Streams) -> Option<End> {
        let now = Instant::now();
        self.ends(streams).find(|(moment, _)| *moment <= now).map(|(_, end)| end)
    }

    /// With nothing to send: waits for the end, or for the time of a bookmark.
    fn idle(&mut self, streams: Streams, period: Option<Duration>) -> Step {
        let bookmark = period.filter(|_| self.wants_bookmarks).map(|it| self.last_bookmark + it);
        if bookmark.is_some_and(|moment| moment <= Instant::now()) {
            self.send_bookmark(false);
            return self.lines.pop_front().map_or(Step::Wait(None), Step::Send);
        }
        Step::Wait(self.ends(streams).map(|(moment, _)| moment).chain(bookmark).min())
    }

    fn send_changes(&mut self, state: &State) {
        if self.end.is_some() {
            return;
        }
        match state.store.since(self.version) {
            Ok(changes) => {
                let selected =
                    changes.iter().filter_map(|change| change.event(self.resource, &self.selector));
                self.lines.extend(selected.map(|(kind, object)| line(kind, &object)));
                self.version = self.version.max(state.store.version);
            }
            Err(_) => self.expire(state),
        }
        if state.bookmarks > self.bookmarks {
            self.bookmarks = state.bookmarks;
            if self.wants_bookmarks {
                self.send_bookmark(false);
            }
        }
    }

    fn expire(&mut self, state: &State) {
        let status = self.too_old(state).to_json().to_string();
        self.lines.push_back(line("ERROR", &status.into()));
        self.end = Some(End::Clean);
    }

    fn too_old(&self, state: &State) -> Box<Status> {
        let (version, oldest) = (self.version, state.store.compacted);
        Status::expired(&format!("too old resource version: {version} ({oldest})"))
    }

    fn send_current(&mut self, state: &State) {
        let objects = state.store.current(self.resource);
        let selected = objects.filter(|it| self.selector.matches(self.resource, &it.value));
        self.lines.extend(selected.map(|object| line("ADDED", &object.json)));
        self.version = state.store.version;
    }

    /// Says up to which version everything has been sent.
    fn send_bookmark(&mut self, ends_initial_events: bool) {
        let mut metadata = json!({
            "resourceVersion": self.version.to_string(), "creationTimestamp": null,
        });
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = (self.resource.kind(), self.resource.api_version());
        let fields = self.resource.empty().iter().map(|(name, its)| format!(r#","{name}":{its}"#));
        let fields: String = fields.collect();
        let object = format!(
            r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata}{fields}}}"#
        );
        self.lines.push_back(line("BOOKMARK", &object.into()));
        self.last_bookmark = Instant::now();
    }

    /// Does what has happened to the watches of this resource since the last look.
    fn suffer(&mut self, state: &State) {
        let new = &state.mishaps[self.mishaps..];
        self.mishaps = state.mishaps.len();
        let resource = self.resource;
        for (_, mishap) in new.iter().filter(|(of, _)| *of == resource) {
            match mishap {
                Mishap::End => self.end = Some(End::Clean),
                Mishap::Break => self.end = Some(End::Break),
                Mishap::HalfLine => self.halve = true,
                Mishap::Garbage => self.lines.push_back(Bytes::from_static(b"{\"type\":\0]}\n")),
                Mishap::Expired => self.expire(state),
            }
        }
    }
}

/// What apimachinery/pkg/apis/meta/internalversion/validation refuses of watches.
fn check(query: &BTreeMap<String, String>, streaming: StreamingLists) -> Result<(), Box<Status>> {
    let matching = query.get("resourceVersionMatch").map(String::as_str).unwrap_or_default();
    let mut wrong = Vec::new();
    match (query.contains_key("sendInitialEvents"), streaming) {
        (_, StreamingLists::Ignored) => {}
        (false, _) if !matching.is_empty() => wrong.push((
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
             provided",
        )),
        (false, _) => {}
        (true, streaming) => {
            if matching != "NotOlderThan" {
                wrong.push((
                    "resourceVersionMatch",
                    "Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                     NotOlderThan",
                ));
            }
            if streaming == StreamingLists::Refused {
                wrong.push((
                    "sendInitialEvents",
                    "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                     feature gate is enabled",
                ));
            }
        }
    }
    match &wrong[..] {
        [] => Ok(()),
        wrong => Err(Status::invalid("meta.k8s.io", "ListOptions", "", wrong)),
    }
}

fn line(kind: &str, object: &Bytes) -> Bytes {
    let mut line = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}
