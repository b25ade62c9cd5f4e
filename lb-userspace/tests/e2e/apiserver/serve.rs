//! Connections, and one answer for each request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use axum::extract::Query;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::behaviour::Answer;
use super::requests::{Request, Verb};
use super::resource::{Resource, Target};
use super::state::Shared;
use super::status::Status;
use super::watch::Watch;
use super::{events, list};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Response = HttpResponse<Body>;

/// What the server is told from outside, each with somebody who waits until it is done.
pub(super) enum Order {
    /// To refuse connections, and to break those that there are.
    Leave(mpsc::Sender<()>),
    /// To listen again.
    Return(mpsc::Sender<io::Result<()>>),
}

/// Serves until nobody can give orders any more.
pub(super) async fn run(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    mut orders: UnboundedReceiver<Order>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let mut listener = Some(TcpListener::from_std(listener)?);
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Leave(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    let _ = done.send(());
                }
                Some(Order::Return(done)) => {
                    let bound = bind(address);
                    let _ = done.send(bound.map(|bound| listener = Some(bound)));
                }
            },
            Ok((stream, _)) = accept(listener.as_ref()) => {
                let shared = Arc::clone(&shared);
                connections.spawn(connection(stream, number, acceptor.clone(), shared));
                number += 1;
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn connection(stream: TcpStream, number: usize, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Every line of a watch goes at once, as Go's servers send it.
    let _ = stream.set_nodelay(true);
    // A client that does not trust the server, or has gone, is no concern of the server's.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(shared, number, request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Answers, and notes the request first.
async fn respond(
    shared: Arc<Shared>,
    connection: usize,
    request: HttpRequest<Incoming>,
) -> Response {
    let query = Query::<BTreeMap<String, String>>::try_from_uri(request.uri());
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let target = Target::parse(request.uri().path());
    let seen = Request::of(&request, connection, query, target.as_ref());
    let number = {
        let mut state = shared.state();
        state.requests.push(seen.clone());
        state.requests.len() - 1
    };
    let instead = match (&target, is_let_in(&shared, &request)) {
        (_, false) => Err(Status::unauthorized()),
        (None, true) => Err(Status::no_such_resource()),
        (Some(target), true) => instead(&shared, target.resource, seen.verb),
    };
    let delay = shared.state().behaviour.delay;
    tokio::time::sleep(delay).await;
    let answer = match instead {
        Err(status) => Err(status),
        Ok(Some(Answer::Nothing)) => std::future::pending().await,
        Ok(_) => {
            let target = target.expect("there is one where nothing is wrong");
            answer(&shared, &target, &seen, request).await
        }
    };
    let response = answer.unwrap_or_else(|status| failure(&status));
    shared.state().requests[number].status = response.status().as_u16();
    response
}

fn is_let_in(shared: &Shared, request: &HttpRequest<Incoming>) -> bool {
    let token = request.headers().get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    token == Some(&format!("Bearer {}", shared.state().token))
}

/// What is wrong with the server, as far as it concerns this request.
fn instead(shared: &Shared, resource: Resource, verb: Verb) -> Result<Option<Answer>, Box<Status>> {
    let mut state = shared.state();
    if resource == Resource::ServiceCidrs && state.behaviour.no_service_cidrs {
        return Err(Status::no_such_resource());
    }
    match state.behaviour.take(resource) {
        Some(Answer::Forbidden) => Err(Status::forbidden(resource, verb.name())),
        Some(Answer::TooMany(seconds)) => Err(Status::too_many(seconds)),
        Some(Answer::Internal) => Err(Status::internal()),
        Some(Answer::Unavailable) => Err(Status::unavailable()),
        other @ (Some(Answer::Nothing) | None) => Ok(other),
    }
}

async fn answer(
    shared: &Arc<Shared>,
    target: &Target,
    seen: &Request,
    request: HttpRequest<Incoming>,
) -> Result<Response, Box<Status>> {
    match seen.verb {
        Verb::List => list::answer(&shared.state().store, target, &seen.query)
            .map(|list| document(StatusCode::OK, list)),
        Verb::Watch => Watch::begin(shared, target, &seen.query).map(stream),
        Verb::Get => get(shared, target),
        Verb::Create if target.resource == Resource::Events && target.name.is_none() => {
            create(shared, target, request).await
        }
        // No role allows more to clients.
        Verb::Create | Verb::Change => Err(Status::forbidden(target.resource, seen.verb.name())),
    }
}

fn get(shared: &Shared, target: &Target) -> Result<Response, Box<Status>> {
    let name = target.name.clone().unwrap_or_default();
    let key = (target.namespace.clone().unwrap_or_default(), name);
    let state = shared.state();
    let object = state.store.get(target.resource, &key);
    let object = object.ok_or_else(|| Status::not_found(target.resource, &key.1))?;
    Ok(document(StatusCode::OK, object.json.clone()))
}

/// Creates an Event.
async fn create(
    shared: &Shared,
    target: &Target,
    request: HttpRequest<Incoming>,
) -> Result<Response, Box<Status>> {
    let body = request.into_body().collect().await;
    let body = body.map_err(|_| Status::bad_request("the body broke off"))?.to_bytes();
    let mut event: Value = serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(&format!("not JSON: {error}")))?;
    events::check(target, &event)?;
    let name = event["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = target.namespace.clone().unwrap_or_default();
    event["metadata"]["namespace"] = namespace.as_str().into();
    let key = (namespace, name);
    let created = shared.change(|state| match state.store.get(target.resource, &key) {
        Some(_) => None,
        None => {
            state.store.set(event);
            state.store.get(target.resource, &key).map(|object| object.json.clone())
        }
    });
    let created = created.ok_or_else(|| Status::already_exists(target.resource, &key.1))?;
    Ok(document(StatusCode::CREATED, created))
}

fn document(code: StatusCode, json: Bytes) -> Response {
    respond_with(code, Full::new(json).map_err(|never| match never {}).boxed_unsync())
}

fn stream(watch: Watch) -> Response {
    let chunks = unfold(watch, async |mut watch| {
        let bytes = watch.next().await?;
        Some((bytes.map(Frame::data), watch))
    });
    respond_with(StatusCode::OK, StreamBody::new(chunks).boxed_unsync())
}

fn failure(status: &Status) -> Response {
    let mut response = document(status.code, status.to_json().to_string().into());
    if let Some(seconds) = status.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn respond_with(code: StatusCode, body: Body) -> Response {
    let builder = HttpResponse::builder().status(code);
    builder.header(CONTENT_TYPE, "application/json").body(body).expect("a proper answer")
}
