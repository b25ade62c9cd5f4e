//! A resource of the API in `lb status`: whether all its objects were seen, and what is wrong.

use crate::api::types::SourceStatus;
use crate::engine::Engine;

/// A resource in `lb status`.
#[derive(Debug)]
pub(super) struct Health {
    engine: Engine,
    shown: SourceStatus,
}

impl Health {
    pub(super) fn new(engine: Engine, plural: &str) -> Self {
        let shown = SourceStatus {
            kind: format!("kubernetes {plural}"),
            path: None,
            synced: false,
            error: None,
        };
        Self { engine, shown }
    }

    /// All objects were seen.
    pub(super) async fn synced(&mut self) {
        if !self.shown.synced {
            self.shown.synced = true;
            tracing::info!("{}: listed", self.shown.kind);
            self.engine.source(self.shown.clone()).await;
        }
    }

    /// Says once what is wrong, and once that it is well again.
    pub(super) async fn set(&mut self, error: Option<String>) {
        if self.shown.error == error {
            return;
        }
        match &error {
            Some(error) => {
                tracing::warn!("{}: {error}; what is known is served on", self.shown.kind);
            }
            None => tracing::info!("{}: the server answers again", self.shown.kind),
        }
        self.shown.error = error;
        self.engine.source(self.shown.clone()).await;
    }
}
