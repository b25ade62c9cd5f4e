//! Lists and watches one resource, again and again, as long as the agent runs.
//!
//! kube-rs's own watcher is not used: it says nothing while the server is silent, so that nobody could
//! tell a quiet hour from one without a server; begins the same watch again when the server answers 410
//! to it; and has no way back from streaming lists. See `docs/decisions/0024-following-the-api.md`.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, pin_mut};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, Error, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::backoff::{Backoff, jitter};
use super::client::{Connector, Shared};
use super::health::Health;
use crate::engine::Engine;

/// Objects of one page of a list, as client-go asks for.
const PAGE: u32 = 500;
/// Changes that are handed over at once, if so many wait.
const BATCH: usize = 512;
/// How long a watch lasts, in seconds: a different time for each, so that not all begin anew at once.
const WATCH: std::ops::Range<u32> = 240..290;
/// How long after its end a watch is given up, if the server does not end it.
const OVERDUE: Duration = Duration::from_secs(10);
/// How long a server may take to begin an answer, or to send one page.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a server may be silent in a streaming list, before it is asked for pages instead.
const LIST_SILENCE: Duration = Duration::from_secs(15);
/// After a watch that ended at once, with nothing said.
const AGAIN: Duration = Duration::from_millis(500);
/// How long to wait before a resource is asked for again that the server does not have.
const ABSENT: Duration = Duration::from_secs(300);
/// Marks the bookmark that ends a streaming list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What of a resource is listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selection {
    pub(super) fn labels(selector: String) -> Self {
        Self { labels: Some(selector), ..Self::default() }
    }

    pub(super) fn fields(selector: String) -> Self {
        Self { fields: Some(selector), ..Self::default() }
    }
}

/// What it means that the server does not have a resource, or does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// Nothing can be served without it.
    Fails,
    /// As if there were no object.
    IsEmpty,
}

/// One change of a resource.
#[derive(Debug)]
pub(super) enum Change<K> {
    /// An object as it is.
    Is(K),
    /// The last state of an object that is gone.
    Gone(K),
}

/// A resource that can be listed and watched.
pub(super) trait Listed:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Listed for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

/// Who is told about a resource.
pub(super) trait Receiver<K>: Send {
    /// A list begins.
    fn begin(&mut self);
    /// Changes in order, or parts of a list.
    fn change(&mut self, changes: Vec<Change<K>>) -> impl Future<Output = ()> + Send;
    /// A list has ended: what was in none of its parts is gone.
    fn listed(&mut self) -> impl Future<Output = ()> + Send;
}

/// Follows one resource.
#[derive(Debug)]
pub(super) struct Reflector<K> {
    connector: Arc<Connector>,
    health: Health,
    selection: Selection,
    absence: Absence,
    backoff: Backoff,
    /// Whether the server is asked for streaming lists.
    streams: bool,
    /// What has been seen; a watch begins there.
    version: Option<String>,
    /// Whether all objects were seen once.
    listed: bool,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// Why something ended.
#[derive(Debug)]
enum End {
    /// As it should, or by a cut connection: what follows is asked for at once.
    Ended,
    /// The server does not remember [`Reflector::version`] any more.
    Expired,
    /// It cannot stream lists.
    NoStreams,
    /// Something was no event, so that one may have been missed.
    Garbled(String),
    /// Something else, and how long the server asks to be left alone.
    Failed(String, Duration),
    /// It does not have the resource.
    Absent(String),
    /// It does not show it to us.
    Forbidden(String),
    /// It does not know us.
    Unauthorized(String),
}

impl<K: Listed> Reflector<K> {
    pub(super) fn new(
        connector: Arc<Connector>,
        engine: Engine,
        selection: Selection,
        absence: Absence,
    ) -> Self {
        Self {
            connector,
            health: Health::new(engine, &K::plural(&())),
            selection,
            absence,
            backoff: Backoff::default(),
            streams: true,
            version: None,
            listed: false,
            kind: std::marker::PhantomData,
        }
    }

    /// Tells `receiver` what there is and what changes, for ever.
    pub(super) async fn follow(mut self, mut receiver: impl Receiver<K>) {
        loop {
            let begun = Instant::now();
            let end = self.round(&mut receiver).await;
            tracing::debug!("{}: {end:?} after {:?}", K::plural(&()), begun.elapsed());
            match end {
                End::Ended if begun.elapsed() < AGAIN => sleep(jitter(AGAIN)).await,
                End::Ended => self.backoff.reset(),
                End::NoStreams => self.streams = false,
                End::Expired => {
                    self.version = None;
                    // All agents are told so in one moment.
                    sleep(self.backoff.next(Duration::ZERO)).await;
                }
                End::Garbled(error) => {
                    self.version = None;
                    self.pause(error, Duration::ZERO).await;
                }
                End::Unauthorized(error) => {
                    self.connector.renew().await;
                    self.pause(error, Duration::ZERO).await;
                }
                End::Absent(_) if self.can_do_without() => {
                    self.do_without(&mut receiver, None).await;
                }
                End::Forbidden(error) if self.can_do_without() => {
                    self.do_without(&mut receiver, Some(error)).await;
                }
                End::Absent(error) | End::Forbidden(error) => {
                    self.pause(error, Duration::ZERO).await;
                }
                End::Failed(error, asked) => self.pause(error, asked).await,
            }
        }
    }

    async fn pause(&mut self, error: String, asked: Duration) {
        self.health.set(Some(error)).await;
        sleep(self.backoff.next(asked)).await;
    }

    /// What was listed once is served on, whatever the server says of it now.
    fn can_do_without(&self) -> bool {
        self.absence == Absence::IsEmpty && !self.listed
    }

    /// The resource counts as empty for a while.
    async fn do_without(&mut self, receiver: &mut impl Receiver<K>, error: Option<String>) {
        self.version = None;
        receiver.begin();
        receiver.listed().await;
        self.health.synced().await;
        self.health.set(error).await;
        sleep(ABSENT).await;
    }

    /// A list has ended.
    async fn complete(&mut self, receiver: &mut impl Receiver<K>) {
        receiver.listed().await;
        self.health.synced().await;
        self.listed = true;
    }

    /// A list, if one is needed, and a watch.
    async fn round(&mut self, receiver: &mut impl Receiver<K>) -> End {
        let Shared { client, server } = match self.connector.client().await {
            Ok(shared) => shared,
            Err(error) => return failed(format!("{error:#}")),
        };
        let api = Api::<K>::all(client);
        let result = match &self.version {
            Some(version) => {
                let version = version.clone();
                self.watch(&api, &version, receiver).await
            }
            None if self.streams => self.watch(&api, "", receiver).await,
            None => self.list(&api, receiver).await,
        };
        match result {
            Ok(()) => End::Ended,
            Err(End::Failed(error, asked)) => End::Failed(format!("{server}: {error}"), asked),
            Err(end) => end,
        }
    }

    /// Lists page by page.
    async fn list(&mut self, api: &Api<K>, receiver: &mut impl Receiver<K>) -> Result<(), End> {
        receiver.begin();
        let mut params = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        loop {
            let page = answered(api.list(&params)).await?;
            self.health.set(None).await;
            receiver.change(page.items.into_iter().map(Change::Is).collect()).await;
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                let missing = || failed("the list has no metadata.resourceVersion".to_owned());
                self.version = Some(version.ok_or_else(missing)?);
                self.complete(receiver).await;
                return Ok(());
            }
        }
    }

    /// Follows what happens after `version`; if that is empty, after a list that the server sends first.
    async fn watch(
        &mut self,
        api: &Api<K>,
        version: &str,
        receiver: &mut impl Receiver<K>,
    ) -> Result<(), End> {
        let mut listing = version.is_empty();
        let seconds = fastrand::u32(WATCH);
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: listing,
        };
        let begun = answered(api.watch(&params, version)).await;
        let stream = begun.map_err(|end| if listing { end.of_streaming() } else { end })?;
        self.health.set(None).await;
        if listing {
            receiver.begin();
        }
        let patience = Duration::from_secs(seconds.into()) + OVERDUE;
        let stream = stream.ready_chunks(BATCH);
        pin_mut!(stream);
        while let Some(events) = next(&mut stream, listing, patience).await? {
            if !listing {
                self.backoff.reset();
            }
            let mut changes = Vec::with_capacity(events.len());
            let mut end = Ok(());
            for event in events {
                match event {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        self.passed(&object, listing);
                        changes.push(Change::Is(object));
                    }
                    Ok(WatchEvent::Deleted(object)) => {
                        self.passed(&object, listing);
                        changes.push(Change::Gone(object));
                    }
                    Ok(WatchEvent::Bookmark(bookmark)) => {
                        let ends = bookmark.metadata.annotations.contains_key(INITIAL_EVENTS_END);
                        if listing && ends {
                            receiver.change(std::mem::take(&mut changes)).await;
                            self.complete(receiver).await;
                            listing = false;
                        }
                        if !listing {
                            self.version = Some(bookmark.metadata.resource_version);
                        }
                    }
                    Ok(WatchEvent::Error(status)) => end = Err(End::of_status(&status)),
                    // It would be so again: the others are to be served.
                    Err(Error::SerdeError(error)) if listing => {
                        tracing::error!("one of {} cannot be read: {error}", K::plural(&()));
                    }
                    Err(error) => end = Err(End::of(&error)),
                }
                if end.is_err() {
                    break;
                }
            }
            receiver.change(changes).await;
            end?;
        }
        if listing { Err(failed("the list was cut off".to_owned())) } else { Ok(()) }
    }

    /// What came before an object is not asked for again.
    fn passed(&mut self, object: &K, listing: bool) {
        let version = object.meta().resource_version.as_ref().filter(|version| !version.is_empty());
        if let Some(version) = version.filter(|_| !listing) {
            self.version = Some(version.clone());
        }
    }
}

/// The next events of a watch; `None` at its end.
async fn next<S: Stream + Unpin>(
    stream: &mut S,
    listing: bool,
    patience: Duration,
) -> Result<Option<S::Item>, End> {
    let patience = if listing { LIST_SILENCE } else { patience };
    match timeout(patience, stream.next()).await {
        Ok(events) => Ok(events),
        Err(_) if listing => Err(End::NoStreams),
        Err(_) => Err(failed(format!("the server has been silent for {} s", patience.as_secs()))),
    }
}

/// The server's answer, unless it takes too long.
async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, End> {
    match timeout(ANSWER, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(End::of(&error)),
        Err(_) => Err(failed(format!("the server has not answered for {} s", ANSWER.as_secs()))),
    }
}

fn failed(error: String) -> End {
    End::Failed(error, Duration::ZERO)
}

impl End {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; three variants are ours")]
    fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => Self::of_status(status),
            // A connection that ends within a watch ends it; the next one shows what is the matter.
            Error::ReadEvents(error) => {
                tracing::debug!("a watch was cut: {error}");
                Self::Ended
            }
            Error::SerdeError(error) => Self::Garbled(format!("the server's answer: {error}")),
            error => failed(cause(error)),
        }
    }

    fn of_status(status: &Status) -> Self {
        let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let message = format!("{} ({})", status.message, status.code);
        match status.code {
            410 => Self::Expired,
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            404 => Self::Absent(message),
            _ => Self::Failed(message, Duration::from_secs(asked.into())),
        }
    }

    /// A server that has no streaming lists, or has them switched off, refuses the wish as invalid
    /// (`validateWatchOptions` in `k8s.io/apimachinery`).
    fn of_streaming(self) -> Self {
        let refused = matches!(&self, Self::Failed(message, _) if message.ends_with("(422)"));
        if refused { Self::NoStreams } else { self }
    }
}

/// What is at the bottom of an error: what lies above says only that a request failed.
fn cause(error: &Error) -> String {
    let mut bottom: &dyn std::error::Error = error;
    while let Some(below) = bottom.source() {
        bottom = below;
    }
    bottom.to_string()
}
