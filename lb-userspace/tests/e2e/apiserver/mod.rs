//! A server that speaks Kubernetes' API as far as an agent asks it: HTTPS, bearer tokens, lists in
//! pages, watches; and that can be as bad as servers and networks are.
//!
//! It is a double, not a mock: it holds objects, gives every change a version, and answers as
//! kube-apiserver does, in words and in order. A test says what the cluster holds ([`ApiServer::set`]) and what
//! is wrong ([`ApiServer::behave`], [`ApiServer::leave`]), and afterwards what was asked
//! ([`ApiServer::requests`]).

mod access;
mod behaviour;
mod events;
mod list;
pub(crate) mod objects;
mod requests;
mod resource;
mod selector;
mod serve;
mod state;
mod status;
mod store;
mod tests;
mod tls;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::harness::netns::Namespace;

use access::Access;
use serve::Order;
use state::Shared;
use tls::Identity;

pub(crate) use behaviour::{Answer, Behaviour, Expired, Mishap, StreamingLists, Streams};
pub(crate) use requests::{Request, Verb};
pub(crate) use resource::Resource;
pub(crate) use tests::tests;

/// A running server; dropped, it is stopped.
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    access: Access,
    orders: Option<UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// A server without objects on loopback of the namespace.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("loopback is up");
        let address = listener.local_addr().expect("it is bound");
        let identity = Identity::new(IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("certificates");
        let access = Access::new(address, &identity.authority);
        let shared = Arc::new(Shared::new(access.new_token()));
        let (orders, to_do) = unbounded_channel();
        let state = Arc::clone(&shared);
        // A thread that is started in the namespace is in it: it may bind again there.
        let thread = namespace.run(move || {
            thread::spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().build().expect("a runtime");
                let served = serve::run(listener, identity.acceptor, state, to_do);
                runtime.block_on(served).expect("the server has its socket");
            })
        });
        Self { address, shared, access, orders: Some(orders), thread: Some(thread) }
    }

    /// The file for `--kubeconfig`.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.access.kubeconfig()
    }

    /// The folder that pods find at `/var/run/secrets/kubernetes.io/serviceaccount`.
    pub(crate) fn service_account(&self) -> PathBuf {
        self.access.service_account()
    }

    /// Creates or changes an object.
    #[track_caller]
    pub(crate) fn set(&self, object: Value) {
        self.set_all([object]);
    }

    /// Creates or changes objects, in this order; watches see them at once.
    #[track_caller]
    pub(crate) fn set_all(&self, objects: impl IntoIterator<Item = Value>) {
        self.shared.change(|state| {
            for object in objects {
                state.store.set(object);
            }
        });
    }

    /// Deletes an object, which must exist.
    #[track_caller]
    pub(crate) fn delete(&self, resource: Resource, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let existed = self.shared.change(|state| state.store.delete(resource, key));
        assert!(existed, "there is no {} {namespace}/{name}", resource.kind());
    }

    /// An object as it is, with its version.
    pub(crate) fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.shared.state().store.get(resource, &key).map(|object| object.value.clone())
    }

    /// All objects of a resource, by namespace and name.
    pub(crate) fn objects(&self, resource: Resource) -> Vec<Value> {
        self.shared.state().store.current(resource).map(|object| object.value.clone()).collect()
    }

    /// The version of the latest change.
    pub(crate) fn version(&self) -> u64 {
        self.shared.state().store.version
    }

    /// Forgets all changes before now: who has not seen them must list again.
    pub(crate) fn compact(&self) {
        self.shared.change(|state| state.store.compact());
    }

    /// Changes what kind of server it is, or what is wrong with it.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.shared.change(|state| change(&mut state.behaviour));
    }

    /// Does something to every open watch of a resource.
    pub(crate) fn mishap(&self, resource: Resource, mishap: Mishap) {
        self.shared.change(|state| state.mishaps.push((resource, mishap)));
    }

    /// Sends a bookmark to every open watch that wants them.
    pub(crate) fn bookmark(&self) {
        self.shared.change(|state| state.bookmarks += 1);
    }

    /// Writes a new token into the files; the old one is refused from now on.
    pub(crate) fn rotate_token(&self) {
        let token = self.access.new_token();
        self.shared.change(|state| state.token = token);
    }

    /// Breaks all connections and refuses new ones.
    #[track_caller]
    pub(crate) fn leave(&self) {
        let (done, is_done) = mpsc::channel();
        self.order(Order::Leave(done));
        is_done.recv().expect("the server's thread is alive");
    }

    /// Is back at the same address.
    #[track_caller]
    pub(crate) fn come_back(&self) {
        let (done, is_done) = mpsc::channel();
        self.order(Order::Return(done));
        let bound = is_done.recv().expect("the server's thread is alive");
        bound.expect("nobody has taken the port");
    }

    #[track_caller]
    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("open until dropped");
        assert!(orders.send(order).is_ok(), "the server's thread is alive");
    }

    /// What was asked so far, oldest first.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// The requests of one kind.
    pub(crate) fn requests_to(&self, verb: Verb, resource: Resource) -> Vec<Request> {
        let all = self.requests().into_iter();
        all.filter(|it| it.verb == verb && it.resource == Some(resource)).collect()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
