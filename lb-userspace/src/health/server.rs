//! Listens where health checks are asked for. Anybody may ask: connections are short, and counted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Answer, Checks};
use crate::plan::Family;
use crate::serving::{Limit, on_own_thread};

/// Connections that one client, and all together, may have open. A load balancer asks for each Service.
const CONNECTIONS: (usize, usize) = (128, 512);

/// How long a connection may take: one question, one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait when no connection can be accepted: there are too many open files, say.
const PAUSE: Duration = Duration::from_millis(100);

/// How often is tried again what could not be opened.
const RETRY: Duration = Duration::from_secs(5);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The least that hyper allows, in bytes: a health check has no more to say.
const BUFFER: usize = 8 << 10;

/// The number of endpoints, for load balancers that weigh nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Answers at the ports of `checks` until `stop` becomes true.
///
/// # Errors
///
/// If the thread that answers cannot be started, or panics.
pub async fn run(checks: Checks, stop: watch::Receiver<bool>) -> Result<()> {
    on_own_thread("health", move || Server::new(checks).follow(stop)).await
}

struct Server {
    checks: Checks,
    connections: Limit,
    listeners: BTreeMap<SocketAddr, JoinHandle<Infallible>>,
}

impl Server {
    fn new(checks: Checks) -> Self {
        let connections = Limit::new(CONNECTIONS.0, CONNECTIONS.1);
        Self { checks, connections, listeners: BTreeMap::new() }
    }

    async fn follow(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut changes = self.checks.table.subscribe();
        loop {
            changes.mark_unchanged();
            let all_open = self.settle().await;
            tokio::select! {
                // An error means that the sender is gone, which is a stop as well.
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                // This holds the sender.
                _ = changes.changed() => {}
                () = sleep(RETRY), if !all_open => {}
            }
        }
    }

    /// Opens and closes listeners; says whether all are open that should be.
    async fn settle(&mut self) -> bool {
        let places = self.checks.places();
        let mut gone: Vec<JoinHandle<Infallible>> =
            self.listeners.extract_if(.., |at, _| !places.contains(at)).map(|(_, it)| it).collect();
        gone.iter().for_each(JoinHandle::abort);
        for listener in &mut gone {
            // So that the port is free if it is wanted again.
            let _cancelled = listener.await;
        }
        let mut problems = BTreeMap::new();
        for at in places {
            if self.listeners.get(&at).is_some_and(|listener| !listener.is_finished()) {
                continue;
            }
            match listen(at) {
                Ok(listener) => {
                    let serving =
                        serve(listener, at, self.checks.clone(), self.connections.clone());
                    self.listeners.insert(at, tokio::spawn(serving));
                }
                Err(error) if lacks_family(at, &error) => {}
                Err(error) => drop(problems.insert(at, error.to_string())),
            }
        }
        let all_open = problems.is_empty();
        self.checks.set_problems(problems);
        all_open
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    // Connections of an earlier agent may linger.
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// A kernel without IPv6 has no addresses of it, either.
fn lacks_family(at: SocketAddr, error: &io::Error) -> bool {
    at.ip().is_unspecified() && error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

async fn serve(
    listener: TcpListener,
    at: SocketAddr,
    checks: Checks,
    connections: Limit,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let Some(place) = connections.take(client(source.ip()), true) else {
                    tracing::debug!("{source} asks for too much at once at {at}");
                    continue;
                };
                let checks = checks.clone();
                tokio::spawn(async move {
                    match timeout(PATIENCE, converse(stream, at, &checks)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!("health check by {source}: {error}"),
                        Err(_) => tracing::debug!("health check by {source} took too long"),
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("no connection can be accepted at {at}: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Who counts as one: of IPv6, a whole network, of which each host has as many addresses as it likes.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// Answers the first question, whatever its path and method.
async fn converse(stream: TcpStream, at: SocketAddr, checks: &Checks) -> hyper::Result<()> {
    let service = service_fn(|_| async {
        let answer = checks.answer(at.port(), Family::of(at.ip()));
        Ok::<_, Infallible>(response(answer.as_ref()))
    });
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn response(answer: Option<&Answer>) -> Response<Full<Bytes>> {
    let healthy = answer.is_some_and(|it| it.local_endpoints > 0 && it.service_proxy_healthy);
    // A Service that has gone has nothing here for anybody.
    let body = answer.map_or_else(Vec::new, |answer| {
        serde_json::to_vec(answer).expect("strings and numbers always serialize")
    });
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let weight = answer.map_or(0, |answer| answer.local_endpoints);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(WEIGHT, weight.into());
    response
}
