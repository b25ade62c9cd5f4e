//! Frames as they are on a device, of any form, sent and received byte for byte.

use std::io::{self, Read, Write};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, SockAddr, Socket, Type};

use super::netns::Namespace;
use super::wait::PATIENCE;

/// `ETH_P_ALL`, include/uapi/linux/if_ether.h: every protocol, in network order.
const ALL: u16 = 3_u16.to_be();

/// A device, as a socket of AF_PACKET sees it (packet(7)).
pub(crate) struct Tap(Socket);

impl Tap {
    #[track_caller]
    pub(crate) fn on(namespace: &Namespace, device: &str) -> Self {
        let name = device.to_owned();
        let socket = namespace.run(move || {
            let socket = packet_socket()?;
            socket.bind(&address(&socket, &name)?)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok::<_, io::Error>(socket)
        });
        Self(socket.unwrap_or_else(|error| panic!("a packet socket on {device}: {error}")))
    }

    /// Sends a frame out of the device.
    #[track_caller]
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = (&self.0).write(frame);
        assert_eq!(sent.ok(), Some(frame.len()), "sent: {frame:x?}");
    }

    /// The next frame that comes by the device from this Ethernet address.
    #[track_caller]
    pub(crate) fn receive_from(&self, source: [u8; 6]) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        loop {
            let length = (&self.0).read(&mut buffer);
            let frame = &buffer[..length.unwrap_or_else(|error| panic!("no frame: {error}"))];
            if frame.get(6..12) == Some(&source[..]) {
                return frame.to_vec();
            }
        }
    }
}

/// A socket that sees the packets of all devices.
pub(super) fn packet_socket() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW, Some(i32::from(ALL).into()))
}

#[expect(clippy::cast_possible_truncation, reason = "constants, and a small size")]
fn address(socket: &Socket, device: &str) -> io::Result<SockAddr> {
    let index = name_to_index(socket, device)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ALL,
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the storage is aligned for every address and larger than this one, which it then holds.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
