//! What all parts of the server share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::behaviour::{Behaviour, Mishap};
use super::requests::Request;
use super::resource::Resource;
use super::store::Store;

pub(super) struct State {
    pub(super) store: Store,
    pub(super) behaviour: Behaviour,
    /// The only token that is good.
    pub(super) token: String,
    pub(super) requests: Vec<Request>,
    /// How many bookmarks were asked for so far.
    pub(super) bookmarks: usize,
    /// Everything that ever happened to open watches.
    pub(super) mishaps: Vec<(Resource, Mishap)>,
}

/// The state, and a bell that rings when it changes.
pub(super) struct Shared {
    state: Mutex<State>,
    bell: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(token: String) -> Self {
        let state = State {
            store: Store::new(),
            behaviour: Behaviour::default(),
            token,
            requests: Vec::new(),
            bookmarks: 0,
            mishaps: Vec::new(),
        };
        Self { state: Mutex::new(state), bell: watch::Sender::new(()) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes whoever waits for that.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.bell.send_replace(());
        result
    }

    /// Hears of changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}
