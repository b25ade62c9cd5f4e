//! The command line's end of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::SOCKET_FILE;
use super::types::{
    ApplyRequest, CloseReport, DeleteRequest, Failure, List, Outcome, Status, WatchLine,
};
use crate::object::{Key, Kind};
use crate::sockets::CloseRequest;

/// Why a request got no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket, or nobody behind it.
    #[error(
        "the agent is not running (nothing answers on {0}); start it with `lb agent` as root, \
         or name another agent's folder with --run-dir", socket.display()
    )]
    NotRunning {
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("{} can only be opened by root; run this command as root, for instance with sudo", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The agent refused the request as a whole.
    #[error("{0}")]
    Refused(String),
    /// The agent went away while it answered.
    #[error("the agent closed the connection before it had answered ({0}); is it being stopped?")]
    Interrupted(#[source] hyper::Error),
    /// The socket cannot be used.
    #[error("{} cannot be used: {source}", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The agent speaks otherwise.
    #[error("the agent's answer is not understood ({0}); is it of another version than this lb?")]
    Answer(#[from] serde_json::Error),
}

/// Asks the agent of one run folder. Every request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent with this `--run-dir`. Does not connect yet.
    pub fn new(run_dir: &Path) -> Self {
        Self { socket: run_dir.join(SOCKET_FILE) }
    }

    /// Submits objects; one outcome each, in order.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Vec<Outcome>, ClientError> {
        self.post("/v1/apply", request).await
    }

    /// Deletes objects; one outcome each, in order.
    pub async fn delete(&self, keys: Vec<Key>, dry_run: bool) -> Result<Vec<Outcome>, ClientError> {
        self.post("/v1/delete", &DeleteRequest { keys, dry_run }).await
    }

    /// Closes sockets whose backends are gone.
    pub async fn close(&self, request: CloseRequest) -> Result<CloseReport, ClientError> {
        self.post("/v1/close", &request).await
    }

    /// What `lb status` shows.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Objects of a kind, sorted by namespace and name.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<Vec<Arc<Value>>, ClientError> {
        let list: List = self.get(&path(kind, namespace, name, false)).await?;
        Ok(list.items)
    }

    /// Objects of a kind, sorted by namespace and name, and every change from then on.
    pub async fn watch(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<(Vec<Arc<Value>>, Watch), ClientError> {
        let response =
            self.send(Method::GET, &path(kind, namespace, name, true), Bytes::new()).await?;
        let mut watch = Watch { body: response.into_body(), buffer: BytesMut::new() };
        let mut existing = Vec::new();
        while let Some(WatchLine::Added(object)) = watch.line().await? {
            existing.push(object);
        }
        Ok((existing, watch))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        whole(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)?;
        whole(self.send(Method::POST, path, body.into()).await?).await
    }

    /// Sends one request. Any answer but success becomes an error with the agent's own words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.failed(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Interrupted)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "lb")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("the path is percent-encoded");
        let response = sender.send_request(request).await.map_err(ClientError::Interrupted)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.collect().await.map_err(ClientError::Interrupted)?.to_bytes();
        // Refusals by the HTTP layer itself, such as a body that is too large, are plain text.
        let message = serde_json::from_slice::<Failure>(&body).map_or_else(
            |_| String::from_utf8_lossy(&body).into_owned(),
            |failure| failure.message,
        );
        Err(ClientError::Refused(if message.is_empty() { status.to_string() } else { message }))
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        // `ErrorKind` grows with the standard library, so it is asked, not matched.
        let kind = source.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            ClientError::NotRunning { socket }
        } else if kind == io::ErrorKind::PermissionDenied {
            ClientError::Denied { socket }
        } else {
            ClientError::Socket { socket, source }
        }
    }
}

/// A stream of changes; ends when the agent stops.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Watch {
    /// The next object that came, changed or went, or `None` when the agent has ended the stream.
    pub async fn next(&mut self) -> Result<Option<Arc<Value>>, ClientError> {
        loop {
            match self.line().await? {
                None => return Ok(None),
                Some(WatchLine::Bookmark) => {}
                Some(WatchLine::Error(failure)) => {
                    return Err(ClientError::Refused(failure.message));
                }
                Some(
                    WatchLine::Added(object)
                    | WatchLine::Modified(object)
                    | WatchLine::Deleted(object),
                ) => return Ok(Some(object)),
            }
        }
    }

    async fn line(&mut self) -> Result<Option<WatchLine>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(searched + end);
                self.buffer.advance(1);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            searched = self.buffer.len();
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(ClientError::Interrupted)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = response.collect().await.map_err(ClientError::Interrupted)?.aggregate();
    Ok(serde_json::from_reader(body.reader())?)
}

fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>, watch: bool) -> String {
    let mut path = format!("/v1/{}", kind.plural());
    let watch = watch.then_some("true");
    let mut separator = '?';
    for (key, value) in [("namespace", namespace), ("name", name), ("watch", watch)] {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(key);
            path.push('=');
            path.extend(value.bytes().map(percent_encoded));
            separator = '&';
        }
    }
    path
}

/// A person may ask for any name, valid or not.
fn percent_encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests;
