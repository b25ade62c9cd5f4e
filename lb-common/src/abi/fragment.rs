//! `FRAGMENTS`: the ports of a fragmented packet, which only its first fragment has.

use super::{Address, Port};

/// Key of `FRAGMENTS`: what the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5),
/// before they are rewritten.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification. A number.
    pub id: u32,
    /// Protocol number.
    pub protocol: u8,
    /// The [`super::Hook`] that met the first one.
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl FragmentKey {
    /// No packet.
    pub const NONE: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        id: 0,
        protocol: 0,
        hook: 0,
        reserved: [0; 2],
    };
}

/// Value of `FRAGMENTS`. Both zero for a ping that is answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port.
    pub source: Port,
    /// Destination port.
    pub destination: Port,
}
