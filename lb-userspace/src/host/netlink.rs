//! Questions and requests to the kernel by rtnetlink(7): each is answered before the next is asked.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// The kernel's messages are no longer.
const BUFFER: usize = 32 << 10;

/// How often a listing that a change interrupted is begun again.
const ATTEMPTS: u32 = 5;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// The kernel says so: there is no such object, or no route.
    #[error("the kernel answers: {0}")]
    Refused(io::Error),
    /// The socket cannot be used.
    #[error("the netlink socket fails: {0}")]
    Socket(#[from] io::Error),
    /// The answer is not understood. More of it may be under way.
    #[error("the kernel's answer is not understood: {0}")]
    Answer(String),
}

impl From<DecodeError> for NetlinkError {
    fn from(error: DecodeError) -> Self {
        Self::Answer(error.to_string())
    }
}

/// A socket for questions about the network namespace of the thread that opened it. To be dropped
/// after an error that is not [`NetlinkError::Refused`].
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

/// Whether the answer is complete.
enum Progress {
    More,
    Done,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = open_socket(SocketFlags::empty())?;
        Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 0 })
    }

    /// All objects that the question selects. After many interruptions in a row, with the changes of
    /// the last one half seen.
    pub(crate) fn list(
        &mut self,
        question: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut listed = Vec::new();
        for _ in 0..ATTEMPTS {
            listed.clear();
            let mut interrupted = false;
            self.send(question, NLM_F_DUMP)?;
            self.receive(|header, payload| {
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                if matches!(payload, NetlinkPayload::Done(_)) {
                    return Ok(Progress::Done);
                }
                listed.push(object(payload)?);
                Ok(Progress::More)
            })?;
            if !interrupted {
                break;
            }
        }
        Ok(listed)
    }

    /// The one object that the question names.
    pub(crate) fn get(
        &mut self,
        question: &RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let mut found = None;
        self.send(question, 0)?;
        self.receive(|_, payload| {
            found = Some(object(payload)?);
            Ok(Progress::Done)
        })?;
        found.ok_or_else(|| NetlinkError::Answer("it is empty".to_owned()))
    }

    /// Makes the change that the message describes, which more flags say how to.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; one variant is ours")]
    pub(crate) fn change(
        &mut self,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_ACK | flags)?;
        self.receive(|_, payload| match payload {
            NetlinkPayload::Error(answer) if answer.code.is_none() => Ok(Progress::Done),
            other => object(other).map(|_| Progress::More),
        })
    }

    fn send(&mut self, question: &RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question.clone()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    /// Shows the messages of the answer to `take` until it is done.
    fn receive(
        &mut self,
        mut take: impl FnMut(
            NetlinkHeader,
            NetlinkPayload<RouteNetlinkMessage>,
        ) -> Result<Progress, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        loop {
            let received = recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC);
            let (_, length) = received.map_err(io::Error::from)?;
            let too_long = || NetlinkError::Answer("it is too long".to_owned());
            let mut rest = self.buffer.get(..length).ok_or_else(too_long)?;
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
                // Messages begin at multiples of four bytes.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                match take(message.header, message.payload)? {
                    Progress::More => {}
                    Progress::Done => return Ok(()),
                }
            }
        }
    }
}

/// A socket that asks, or listens to announcements.
pub(crate) fn open_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum; two variants are ours")]
fn object(
    payload: NetlinkPayload<RouteNetlinkMessage>,
) -> Result<RouteNetlinkMessage, NetlinkError> {
    match payload {
        NetlinkPayload::InnerMessage(object) => Ok(object),
        NetlinkPayload::Error(error) => Err(NetlinkError::Refused(error.to_io())),
        other => Err(NetlinkError::Answer(format!("unexpected message {other:?}"))),
    }
}
