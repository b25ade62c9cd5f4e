//! A small upstream on loopback, by UDP and TCP on one port.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};

use hickory_resolver::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::super::{Flags, Forwarder};

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// What a server does with a question.
#[derive(Clone)]
pub(super) enum Manner {
    /// Answers with so many addresses of this TTL.
    Addresses(usize, u32),
    /// The same by TCP; by UDP only that it was too much.
    Truncates,
    /// No such name; the TTL of the SOA record and its minimum.
    NoName(u32, u32),
    /// An alias of this TTL to a name without addresses, whose absence has the other.
    EmptyAlias(u32, u32),
    /// Nothing but a code.
    Code(ResponseCode),
    /// A format error, unless the question has no EDNS.
    OldFashioned,
    /// Says nothing.
    Silent,
    /// Forwards to the forwarder under test.
    Back(Weak<Forwarder>),
}

/// A running server; it ends with the test's runtime.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<Manner>,
    /// Names that were asked for, probes apart.
    asked: Mutex<BTreeSet<(Name, &'static str)>>,
}

impl Server {
    pub(super) async fn start(manner: Manner) -> Self {
        let (udp, tcp) = sockets().await.expect("a free port on loopback");
        let address = udp.local_addr().expect("it is bound");
        let shared =
            Arc::new(Shared { manner: Mutex::new(manner), asked: Mutex::new(BTreeSet::new()) });
        tokio::spawn(serve_udp(Arc::new(udp), shared.clone()));
        tokio::spawn(serve_tcp(tcp, shared.clone()));
        Self { address, shared }
    }

    pub(super) fn set(&self, manner: Manner) {
        *self.shared.manner.lock().expect("no panic") = manner;
    }

    /// The names that it was asked for, by this protocol.
    pub(super) fn asked(&self, protocol: &str) -> usize {
        let asked = self.shared.asked.lock().expect("no panic");
        asked.iter().filter(|(_, by)| *by == protocol).count()
    }
}

async fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    for _ in 0..50 {
        let udp = UdpSocket::bind("127.0.0.1:0").await?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr()?).await {
            return Ok((udp, tcp));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    // An error here is a client that has closed its socket.
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let question = Message::from_vec(&buffer[..length]).expect("a message");
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            if let Some(reply) = shared.answer(question, "udp").await {
                let _gone = socket.send_to(&reply, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, shared.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await?;
        let question = Message::from_vec(&buffer).expect("a message");
        if let Some(reply) = shared.answer(question, "tcp").await {
            stream.write_u16(u16::try_from(reply.len()).expect("short")).await?;
            stream.write_all(&reply).await?;
        }
    }
}

impl Shared {
    async fn answer(&self, question: Message, protocol: &'static str) -> Option<Vec<u8>> {
        let query = question.queries.first().expect("one question").clone();
        let manner = self.manner.lock().expect("no panic").clone();
        let is_probe = query.query_type() == RecordType::HINFO;
        if !is_probe {
            let asked = (query.name().to_lowercase(), protocol);
            self.asked.lock().expect("no panic").insert(asked);
        }
        let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
        reply.metadata.message_type = MessageType::Response;
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        match manner {
            Manner::Silent => return None,
            Manner::Back(forwarder) => {
                let forwarder = forwarder.upgrade()?;
                back(&forwarder, &query, &mut reply).await;
            }
            _ if is_probe => reply.metadata.response_code = ResponseCode::NXDomain,
            Manner::Truncates if protocol == "udp" => reply.metadata.truncation = true,
            Manner::Truncates => addresses(&mut reply, &query, 200, 300),
            Manner::Addresses(count, ttl) => addresses(&mut reply, &query, count, ttl),
            Manner::NoName(ttl, minimum) => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authority(soa(ttl, minimum));
            }
            Manner::EmptyAlias(ttl, absence) => {
                let alias = RData::CNAME(CNAME(name("empty.example.")));
                reply.add_answer(Record::from_rdata(query.name().clone(), ttl, alias));
                reply.add_authority(soa(absence, absence));
            }
            Manner::OldFashioned if question.edns.is_some() => {
                reply.metadata.response_code = ResponseCode::FormErr;
            }
            Manner::OldFashioned => addresses(&mut reply, &query, 1, 300),
            Manner::Code(code) => reply.metadata.response_code = code,
        }
        Some(reply.to_vec().expect("a message"))
    }
}

/// What this agent's server does with a question that comes from outside.
async fn back(forwarder: &Forwarder, query: &Query, reply: &mut Message) {
    if forwarder.recognise(query) {
        reply.metadata.response_code = ResponseCode::Refused;
        return;
    }
    reply.metadata.response_code = forwarder.ask(query, Flags::default()).await.code;
}

fn addresses(reply: &mut Message, query: &Query, count: usize, ttl: u32) {
    for last in (1..=200).take(count) {
        let address = RData::A(A::new(192, 0, 2, last));
        reply.add_answer(Record::from_rdata(query.name().clone(), ttl, address));
    }
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}
