//! Loads: what a client sends through a balancer to a [`server`]. Each end is a process of its own, so that it can be
//! on a processor and in a network namespace of its own, and has one thread that waits for nothing but the other end.

pub(crate) mod server;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use server::Wish;

/// Bytes in each datagram.
pub(super) const DATAGRAM: usize = 64;
/// How many are sent between two looks at the clock.
const BURST: u64 = 32;
/// Bytes written to a stream at once.
const CHUNK: usize = 128 << 10;
/// In this time a datagram reaches a server that is idle.
const SETTLED: Duration = Duration::from_millis(20);
/// A server that answers later is not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Small UDP datagrams by one socket, as fast as they can be sent
    Datagrams,
    /// One TCP connection, filled
    Stream,
    /// A byte and its echo, one after the other, by one TCP connection
    Requests,
    /// TCP connections, made and closed, one after the other
    Connections,
    /// One connection that asks who the ends are, and one datagram
    Visit,
}

impl Kind {
    /// As the command line has it.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is left out");
        value.get_name().to_owned()
    }
}

/// What the process is to do.
#[derive(clap::Args)]
pub(crate) struct Order {
    /// What to send
    kind: Kind,
    /// To whom
    #[arg(long)]
    to: SocketAddrV4,
    /// For how long
    #[arg(long, default_value_t = 0.0)]
    seconds: f64,
    /// For how long before that, without counting
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
}

/// Sends, and prints what was seen as one JSON object.
pub(crate) fn run(order: &Order) -> Result<()> {
    let seen = match order.kind {
        Kind::Datagrams => datagrams(order),
        Kind::Stream => stream(order),
        Kind::Requests => requests(order),
        Kind::Connections => connections(order),
        Kind::Visit => visit(order),
    };
    println!("{}", seen.with_context(|| format!("{:?} to {}", order.kind, order.to))?);
    Ok(())
}

/// What was done in so many seconds.
struct Done {
    count: u64,
    seconds: f64,
}

impl Done {
    fn into_json(self) -> Value {
        json!({ "rate": self.count as f64 / self.seconds })
    }
}

/// Repeats something without counting, then counting; it returns how much it has done.
fn measure(order: &Order, mut once: impl FnMut() -> io::Result<u64>) -> Result<Done> {
    repeat(order.warm_up, &mut once)?;
    repeat(order.seconds, &mut once)
}

fn repeat(seconds: f64, once: &mut impl FnMut() -> io::Result<u64>) -> Result<Done> {
    let started = Instant::now();
    let mut done = Done { count: 0, seconds: 0.0 };
    while done.seconds < seconds {
        done.count += once()?;
        done.seconds = started.elapsed().as_secs_f64();
    }
    Ok(done)
}

/// What arrives is counted by the server.
fn datagrams(order: &Order) -> Result<Value> {
    let mut counter = Counter::open(order.to)?;
    let socket = datagram_socket(order.to)?;
    let mut burst = || {
        for _ in 0..BURST {
            socket.send(&[0; DATAGRAM])?;
        }
        Ok(BURST)
    };
    repeat(order.warm_up, &mut burst)?;
    let before = counter.settle()?;
    let sent = repeat(order.seconds, &mut burst)?;
    let arrived = counter.settle()? - before;
    ensure!(arrived <= sent.count, "{} were sent, and {arrived} arrived", sent.count);
    let lost = 1.0 - arrived as f64 / sent.count as f64;
    Ok(json!({ "rate": arrived as f64 / sent.seconds, "lost": lost }))
}

/// Bytes are counted as they are written: what is still under way at the end is little.
fn stream(order: &Order) -> Result<Value> {
    let mut connection = ask(order.to, Wish::Take)?;
    let chunk = vec![0; CHUNK];
    let done = measure(order, || connection.write(&chunk).map(|bytes| bytes as u64))?;
    Ok(done.into_json())
}

fn requests(order: &Order) -> Result<Value> {
    let mut connection = ask(order.to, Wish::Echo)?;
    let done = measure(order, || {
        connection.write_all(&[0])?;
        connection.read_exact(&mut [0]).map(|()| 1)
    })?;
    Ok(done.into_json())
}

/// A connection counts when the server has closed it, too, so that no queue of connections grows.
fn connections(order: &Order) -> Result<Value> {
    let done = measure(order, || {
        let mut connection = TcpStream::connect(order.to)?;
        connection.shutdown(Shutdown::Write)?;
        match connection.read(&mut [0])? {
            0 => Ok(1),
            _ => Err(io::Error::other("the server talks to nobody")),
        }
    })?;
    Ok(done.into_json())
}

fn visit(order: &Order) -> Result<Value> {
    let mut ends = String::new();
    ask(order.to, Wish::Who)?.read_to_string(&mut ends).context("the server does not say who")?;
    let Some((client, server)) = ends.split_once(' ') else { bail!("these are no ends: {ends}") };
    let mut counter = Counter::open(order.to)?;
    let before = counter.settle()?;
    datagram_socket(order.to)?.send(&[0; DATAGRAM]).context("cannot send a datagram")?;
    let datagrams = counter.settle()? - before;
    Ok(json!({ "client": client, "server": server, "datagrams": datagrams }))
}

/// Connects, and says what for.
fn ask(to: SocketAddrV4, wish: Wish) -> Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::V4(to), PATIENCE)
        .with_context(|| format!("cannot connect to {to}"))?;
    connection.set_nodelay(true).context("cannot turn delays off")?;
    connection.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
    connection.write_all(&[wish as u8]).context("cannot ask the server")?;
    Ok(connection)
}

fn datagram_socket(to: SocketAddrV4) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    socket.connect(to).with_context(|| format!("cannot connect to {to}"))?;
    Ok(socket)
}

/// Asks the server how many datagrams came.
struct Counter(TcpStream);

impl Counter {
    fn open(server: SocketAddrV4) -> Result<Self> {
        ask(server, Wish::Count).map(Self)
    }

    /// How many came, once no more do.
    fn settle(&mut self) -> Result<u64> {
        let mut count = self.read()?;
        loop {
            thread::sleep(SETTLED);
            match self.read()? {
                same if same == count => return Ok(count),
                more => count = more,
            }
        }
    }

    fn read(&mut self) -> Result<u64> {
        let mut count = [0; 8];
        self.0.write_all(&[0]).context("cannot ask for the count")?;
        self.0.read_exact(&mut count).context("the server does not count")?;
        Ok(u64::from_le_bytes(count))
    }
}
