//! `getaddrinfo`, as the C library's callers use it.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// All stream addresses of a name, in the order the C library recommends. To sort them it connects
/// a UDP socket to each: the reason for this test.
pub(super) fn resolve(name: &str, service: &str) -> io::Result<Vec<IpAddr>> {
    let (name, service) = (CString::new(name)?, CString::new(service)?);
    // SAFETY: all-zero is a valid `addrinfo`: integers and null pointers, "no restriction".
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: two C strings and the hints that outlive the call; `list` receives the result.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), service.as_ptr(), &hints, &mut list) };
    if code != 0 {
        return Err(io::Error::other(format!("getaddrinfo: EAI code {code}")));
    }
    let mut addresses = Vec::new();
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: the entries of the list stay valid until `freeaddrinfo`.
        let info = unsafe { &*entry };
        addresses.extend(address(info));
        entry = info.ai_next;
    }
    // SAFETY: the list came from `getaddrinfo`, and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addresses)
}

fn address(info: &libc::addrinfo) -> Option<IpAddr> {
    match info.ai_family {
        libc::AF_INET => {
            // SAFETY: of this family, so `ai_addr` points to a `sockaddr_in`.
            let address = unsafe { info.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family, so `ai_addr` points to a `sockaddr_in6`.
            let address = unsafe { info.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
