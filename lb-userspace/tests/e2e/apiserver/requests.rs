//! What was asked of the server.

use std::collections::BTreeMap;

use hyper::header::USER_AGENT;
use hyper::{Method, Request as HttpRequest};

use super::resource::{Resource, Target};

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    /// Another one that writes.
    Change,
}

impl Verb {
    /// As RBAC names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Change => "update",
        }
    }
}

/// A request that came with a good token, or without one.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) user_agent: String,
    /// By which connection it came, counted from 0.
    pub(crate) connection: usize,
    /// `None` where the path leads to nothing that the server knows.
    pub(crate) resource: Option<Resource>,
    pub(crate) verb: Verb,
    /// The status that it was answered with; 0 as long as it is not.
    pub(crate) status: u16,
}

impl Request {
    pub(super) fn of<B>(
        request: &HttpRequest<B>,
        connection: usize,
        query: BTreeMap<String, String>,
        target: Option<&Target>,
    ) -> Self {
        let is_watch = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
        let verb = match *request.method() {
            Method::GET if is_watch => Verb::Watch,
            Method::GET if target.is_some_and(|target| target.name.is_some()) => Verb::Get,
            Method::GET => Verb::List,
            Method::POST => Verb::Create,
            _ => Verb::Change,
        };
        let user_agent = request.headers().get(USER_AGENT).and_then(|it| it.to_str().ok());
        Self {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query,
            user_agent: user_agent.unwrap_or_default().to_owned(),
            connection,
            resource: target.map(|target| target.resource),
            verb,
            status: 0,
        }
    }

    /// A parameter, or an empty text.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }
}
