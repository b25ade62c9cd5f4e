//! What was decided, and why.

use crate::abi::{Address, Port};

/// What a hook does to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave the address as it is.
    Pass,
    /// Replace it by the verdict's.
    Rewrite,
    /// Fail the call.
    Refuse(Errno),
}

/// What a TC program does to its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Leave it as it is.
    Pass,
    /// Give it other addresses and ports.
    Rewrite,
    /// Send it back, rewritten.
    Return,
    /// Send an answer in its place.
    Refuse(Refusal),
    /// Let it go.
    Drop,
}

/// What whoever sent a packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is at this port: RST to TCP, port unreachable to UDP.
    Port,
    /// There is no such host: address unreachable.
    Host,
}

/// The errors that a caller can get, as Linux numbers them (`asm-generic/errno.h`).
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// `EADDRINUSE`.
    AddressInUse = 98,
    /// `ENOBUFS`.
    NoBufferSpace = 105,
    /// `ECONNREFUSED`.
    ConnectionRefused = 111,
    /// `EHOSTUNREACH`.
    HostUnreachable = 113,
}

/// What was decided. The reason determines the action. The address is there whether or not it is
/// used: the verifier rejects code that copies what was never written, as an enum's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// New address, if the action is to rewrite.
    pub address: Address,
    /// New port, likewise.
    pub port: Port,
}

/// Declares an enum whose variants are counted, with the names that a person sees.
macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every variant, in order of its index.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in `lb status -o json` and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

counted! {
    /// Why a call, or a packet, went as it did.
    Reason {
        /// It belongs to nobody lb serves. Not counted: it is every other connection.
        NotService = "notService",
        /// Sent to a newly chosen backend. A packet: the first one of a flow.
        Translated = "translated",
        /// An unconnected UDP socket stays with its backend.
        Kept = "kept",
        /// The service has no endpoint.
        NoEndpoints = "noEndpoints",
        /// A ClusterIP, but none of its ports.
        UnknownPort = "unknownPort",
        /// An address of a service range that no Service has.
        Unallocated = "unallocated",
        /// The caller is left alone: its cgroup, or a socket of the agent's own.
        Exempt = "exempt",
        /// The port is a NodePort of this node.
        NodePort = "nodePort",
        /// The port is one that packets to endpoints elsewhere get.
        SnatPort = "snatPort",
        /// The translation could not be remembered, so it was not made. Normally 0.
        OriginFull = "originFull",
        /// Another program had refused the call already.
        AlreadyRefused = "alreadyRefused",
        /// The caller was shown the frontend in place of the backend.
        Reversed = "reversed",
        /// A packet of a known flow.
        Established = "established",
        /// An ICMP error about a packet of a known flow.
        Related = "related",
        /// A ping to a Service's address, which was answered.
        EchoReply = "echoReply",
        /// A client that `loadBalancerSourceRanges` does not name.
        Filtered = "filtered",
        /// Only other nodes have endpoints, and `externalTrafficPolicy: Local` keeps traffic here.
        NoLocalEndpoints = "noLocalEndpoints",
        /// A TCP reset of no known flow.
        Stray = "stray",
        /// `FLOWS` has no room for another flow. Normally 0.
        FlowsFull = "flowsFull",
        /// No port is left by which the node can stand in for a client. Normally 0.
        NoSnatPort = "noSnatPort",
        /// The node has no address by which it can stand in for a client.
        NoSnatAddress = "noSnatAddress",
        /// The node would have to stand in for the client, but the packet leaves by a device without lb's programs.
        UnseenDevice = "unseenDevice",
        /// A refusal that was not sent: too many are, or the packet is of a kind that has none.
        Unanswered = "unanswered",
        /// A packet that ends too early.
        Short = "short",
        /// A packet whose headers contradict each other.
        Malformed = "malformed",
        /// A packet with headers that lb does not follow: too many extensions, a source route, IPv4-mapped addresses.
        Unsupported = "unsupported",
        /// The tables contradict each other: a defect of lb. Always 0.
        Inconsistent = "inconsistent",
    }
}

counted! {
    /// What the application does, or where a packet is met. Resolvers probe addresses with UDP connects (glibc, musl and
    /// Go inside `getaddrinfo`), so those are told apart from TCP's.
    Operation {
        /// `connect` on a TCP socket.
        TcpConnect = "tcpConnect",
        /// `connect` on a UDP socket.
        UdpConnect = "udpConnect",
        /// `sendto`, `sendmsg` with an address.
        UdpSend = "udpSend",
        /// `recvfrom`, `recvmsg`.
        UdpReceive = "udpReceive",
        /// `getpeername`.
        PeerName = "peerName",
        /// `bind`.
        Bind = "bind",
        /// A packet on its way into the node.
        Ingress = "ingress",
        /// A packet on its way out.
        Egress = "egress",
    }
}

/// Number of counters.
pub const COUNTERS: u32 = OPERATIONS * REASONS;

#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const OPERATIONS: u32 = Operation::ALL.len() as u32;
#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const REASONS: u32 = Reason::ALL.len() as u32;

/// Where the counter of this pair stands.
#[inline(always)]
pub const fn counter_index(operation: Operation, reason: Reason) -> u32 {
    operation as u32 * REASONS + reason as u32
}

impl Reason {
    /// What the caller gets.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self {
            Self::Translated | Self::Kept | Self::Reversed => Action::Rewrite,
            Self::NotService
            | Self::Exempt
            | Self::AlreadyRefused
            | Self::Established
            | Self::Related
            | Self::EchoReply
            | Self::Filtered
            | Self::NoLocalEndpoints
            | Self::Stray
            | Self::FlowsFull
            | Self::NoSnatPort
            | Self::NoSnatAddress
            | Self::UnseenDevice
            | Self::Unanswered
            | Self::Short
            | Self::Malformed
            | Self::Unsupported => Action::Pass,
            Self::NodePort | Self::SnatPort => Action::Refuse(Errno::AddressInUse),
            Self::NoEndpoints | Self::UnknownPort | Self::Inconsistent => {
                Action::Refuse(Errno::ConnectionRefused)
            }
            Self::Unallocated => Action::Refuse(Errno::HostUnreachable),
            Self::OriginFull => Action::Refuse(Errno::NoBufferSpace),
        }
    }

    /// What becomes of a packet. One for which there is no room is dropped rather than refused: its sender sends it
    /// again, when there is.
    #[inline(always)]
    pub const fn treatment(self) -> Treatment {
        match self {
            Self::Translated | Self::Established | Self::Related => Treatment::Rewrite,
            Self::EchoReply => Treatment::Return,
            Self::NoEndpoints | Self::UnknownPort => Treatment::Refuse(Refusal::Port),
            Self::Unallocated => Treatment::Refuse(Refusal::Host),
            Self::Filtered
            | Self::NoLocalEndpoints
            | Self::Stray
            | Self::FlowsFull
            | Self::NoSnatPort
            | Self::NoSnatAddress
            | Self::UnseenDevice
            | Self::Unanswered
            | Self::Inconsistent => Treatment::Drop,
            Self::NotService
            | Self::Kept
            | Self::Exempt
            | Self::NodePort
            | Self::SnatPort
            | Self::OriginFull
            | Self::AlreadyRefused
            | Self::Reversed
            | Self::Short
            | Self::Malformed
            | Self::Unsupported => Treatment::Pass,
        }
    }
}

impl Verdict {
    /// The call goes to `address` and `port`, or is shown as having gone there.
    #[inline(always)]
    pub(super) const fn rewrite(reason: Reason, address: Address, port: Port) -> Self {
        Self { reason, address, port }
    }
}

/// A verdict that rewrites nothing.
impl From<Reason> for Verdict {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { reason, address: Address::UNSPECIFIED, port: Port::NONE }
    }
}
