//! Frames of one line.

use alloc::vec;
use alloc::vec::Vec;

use super::super::packet::{Frame, Ip, Payload};
use crate::abi::Address;
use crate::abi::protocol::TCP;
use crate::checksum::{full, pseudo_header};

/// An address and a port.
pub(crate) type End = (Address, u16);

/// What a frame carries.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// TCP with these flags and data.
    Tcp(u8, &'static [u8]),
    /// UDP with this data.
    Udp(&'static [u8]),
}

impl Message {
    fn payload(&self, ports: [u16; 2]) -> Payload {
        match *self {
            Self::Tcp(flags, data) => {
                Payload::Tcp { ports, flags, options: 0, data: data.to_vec() }
            }
            Self::Udp(data) => Payload::Udp { ports, checksum: true, data: data.to_vec() },
        }
    }
}

/// A packet from one end to the other.
pub(crate) fn packet(from: End, to: End, message: &Message) -> Ip {
    Ip::new(from.0, to.0, message.payload([from.1, to.1]))
}

/// It in an Ethernet frame.
pub(crate) fn frame(from: End, to: End, message: &Message) -> Vec<u8> {
    Frame::new(packet(from, to, message)).bytes()
}

/// What comes back by the way that a frame came.
pub(crate) fn back(packet: Ip) -> Vec<u8> {
    back_bytes(&Frame::new(packet).bytes())
}

/// The same of a frame's bytes.
pub(crate) fn back_bytes(frame: &[u8]) -> Vec<u8> {
    let mut back = [&frame[6..12], &frame[..6]].concat();
    back.extend(&frame[12..]);
    back
}

/// A TCP reset with these numbers.
pub(crate) fn reset(from: End, to: End, flags: u8, sequence: u32, acknowledged: u32) -> Ip {
    let mut data = [from.1, to.1].map(u16::to_be_bytes).as_flattened().to_vec();
    data.extend([sequence, acknowledged].map(u32::to_be_bytes).as_flattened());
    data.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let sum = full(pseudo_header(from.0, to.0, TCP, 20), &data);
    data[16..18].copy_from_slice(&sum.to_ne_bytes());
    Ip::new(from.0, to.0, Payload::Other { protocol: TCP, data })
}

/// ICMP unreachable in the name of the address that `refused` was sent to, with so many bytes of it behind its IP
/// header, as a frame on its way back.
pub(crate) fn unreachable(refused: &Ip, (v4_code, v6_code): (u8, u8), transport: usize) -> Vec<u8> {
    let v4 = refused.source.is_v4();
    let header = if v4 { 20 + 4 * usize::from(refused.options) } else { 40 };
    let (kind, code) = if v4 { (3, v4_code) } else { (1, v6_code) };
    let mut data = vec![0; 4];
    data.extend(&refused.bytes()[..header + transport]);
    let answer = Ip::new(refused.destination, refused.source, Payload::Icmp { kind, code, data });
    let mut frame = back(answer);
    if v4 {
        // Internetwork control, and no identification.
        frame[15] = 0xc0;
        frame[18..20].fill(0);
        frame[24..26].fill(0);
        let sum = full(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    }
    frame
}

/// A ping or its answer.
pub(crate) fn ping(from: Address, to: Address, answers: bool) -> Ip {
    let kind = match (from.is_v4(), answers) {
        (true, false) => 8,
        (true, true) => 0,
        (false, false) => 128,
        (false, true) => 129,
    };
    let data = vec![0, 9, 0, 1, 0xab, 0xcd, 0xef];
    Ip::new(from, to, Payload::Icmp { kind, code: 0, data })
}

/// The packet is too big for a link on its way: type and code of the error.
pub(crate) const fn too_big(v4: bool) -> (u8, u8) {
    if v4 { (3, 4) } else { (2, 0) }
}
