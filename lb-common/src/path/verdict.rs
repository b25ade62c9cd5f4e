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
    /// Why a call went as it did.
    Reason {
        /// The address belongs to nobody lb serves. Not counted: it is every other connection.
        NotService = "notService",
        /// Sent to a newly chosen backend.
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
        /// The tables contradict each other: a defect of lb. Always 0.
        Inconsistent = "inconsistent",
    }
}

counted! {
    /// What the application does. Resolvers probe addresses with UDP connects (glibc, musl and
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
            Self::NotService | Self::Exempt | Self::AlreadyRefused => Action::Pass,
            Self::NodePort | Self::SnatPort => Action::Refuse(Errno::AddressInUse),
            Self::NoEndpoints | Self::UnknownPort | Self::Inconsistent => {
                Action::Refuse(Errno::ConnectionRefused)
            }
            Self::Unallocated => Action::Refuse(Errno::HostUnreachable),
            Self::OriginFull => Action::Refuse(Errno::NoBufferSpace),
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
