//! Much data, there and back, and whether it is the same.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Socket, Type};

use super::protocol::Kind;
use super::sockets::{connect, line, open, peer, receive, send};

/// Sends so many bytes on a TCP connection, and reads them back at the same time.
pub(super) fn transfer(to: SocketAddr, bytes: usize) -> io::Result<()> {
    let socket = connected(Kind::tcp(to), to)?;
    line(&socket)?;
    let (sent, mut writer) = (pattern(bytes), socket.try_clone()?);
    let mut received = vec![0; bytes];
    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.write_all(&sent));
        (&socket).read_exact(&mut received)?;
        writing.join().map_err(|_| io::Error::other("the writer has panicked"))?
    })?;
    same(&sent, &received)
}

/// So many datagrams of so many bytes, one after the other.
pub(super) fn datagrams(to: SocketAddr, bytes: usize, count: u32) -> io::Result<()> {
    let socket = connected(Kind::udp(to), to)?;
    for _ in 0..count {
        let sent = text(bytes);
        send(&socket, &sent)?;
        let (from, answer) = receive(&socket)?;
        let echoed = answer.split_once(':').map_or("", |(_, echoed)| echoed);
        same(sent.as_bytes(), echoed.as_bytes())?;
        if from != to {
            return Err(io::Error::other(format!("{from} has answered in place of {to}")));
        }
    }
    Ok(())
}

/// A question on each socket, which nobody but its own server answers.
pub(super) fn ask_each(sockets: &[(Socket, SocketAddr)]) -> io::Result<()> {
    for (number, (socket, to)) in sockets.iter().enumerate() {
        let question = format!("{number}");
        let answer = if socket.r#type()? == Type::DGRAM {
            send(socket, &question)?;
            receive(socket)?.1.split_once(':').map(|(_, echoed)| echoed.to_owned())
        } else {
            send(socket, &(question.clone() + "\n"))?;
            // The first line may be the greeting.
            let first = line(socket)?;
            Some(if first == question { first } else { line(socket)? })
        };
        if answer.as_ref() != Some(&question) {
            return Err(io::Error::other(format!("{answer:?} to question {question} to {to}")));
        }
    }
    Ok(())
}

/// A connection on which data goes to and fro until it is ended.
pub(super) struct Stream {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Stream {
    pub(super) fn start(to: SocketAddr) -> io::Result<Self> {
        let socket = connected(Kind::tcp(to), to)?;
        line(&socket)?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        Ok(Self { over, thread: thread::spawn(move || go_on(&socket, to, &is_over)) })
    }

    /// How many bytes went there and back, or why not.
    pub(super) fn stop(self) -> Result<u64, String> {
        self.over.store(true, Ordering::Relaxed);
        let outcome = self.thread.join().map_err(|_| "the thread has panicked".to_owned())?;
        outcome.map_err(|error| error.to_string())
    }
}

fn go_on(mut socket: &Socket, to: SocketAddr, over: &AtomicBool) -> io::Result<u64> {
    let sent = pattern(8 << 10);
    let mut received = vec![0; sent.len()];
    let mut bytes = 0;
    while !over.load(Ordering::Relaxed) {
        socket.write_all(&sent)?;
        socket.read_exact(&mut received)?;
        same(&sent, &received)?;
        bytes += sent.len() as u64;
        thread::sleep(Duration::from_millis(1));
    }
    if peer(socket)? != to {
        return Err(io::Error::other("getpeername shows another address"));
    }
    Ok(bytes)
}

fn connected(kind: Kind, to: SocketAddr) -> io::Result<Socket> {
    let socket = open(kind)?;
    connect(&socket, to)?;
    Ok(socket)
}

fn same(sent: &[u8], received: &[u8]) -> io::Result<()> {
    match sent.iter().zip(received).position(|(sent, received)| sent != received) {
        None if sent.len() == received.len() => Ok(()),
        place => Err(io::Error::other(format!("other bytes came back, from {place:?} on"))),
    }
}

/// Bytes that do not repeat, whose checksum is that of no others by chance: steps of a generator (Marsaglia,
/// "Xorshift RNGs", 2003).
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_ne_bytes()).take(length).collect()
}

/// The same as letters.
fn text(length: usize) -> String {
    pattern(length).into_iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}
