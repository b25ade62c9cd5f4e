//! `bpf_sock_addr`: the address that a call names, in either family.

use aya_ebpf::programs::SockAddrContext;
use lb_common::abi::{Address, Port};
use lb_common::path::Destination;

/// The family that a hook is called for. The kernel fills other fields for each.
pub(crate) trait Family {
    fn address(context: &SockAddrContext) -> Address;
    fn set_address(context: &SockAddrContext, address: Address);
}

/// `connect4` and its kin.
pub(crate) struct V4;
/// `connect6` and its kin, IPv4-mapped destinations included.
pub(crate) struct V6;

impl Family for V4 {
    #[inline(always)]
    fn address(context: &SockAddrContext) -> Address {
        // SAFETY: the context is valid while the program runs; reads of this field are allowed at
        // every hook of its family.
        Address::from_v4_word(unsafe { (*context.sock_addr).user_ip4 })
    }

    #[inline(always)]
    fn set_address(context: &SockAddrContext, address: Address) {
        // SAFETY: as above, and so are whole-word writes.
        unsafe { (*context.sock_addr).user_ip4 = address.v4_word() };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(context: &SockAddrContext) -> Address {
        // SAFETY: as for V4. Volatile, so that four accesses at fixed offsets remain: the verifier
        // rejects the address arithmetic of a copy.
        unsafe {
            let words = &raw const (*context.sock_addr).user_ip6;
            Address::from_words([
                (&raw const (*words)[0]).read_volatile(),
                (&raw const (*words)[1]).read_volatile(),
                (&raw const (*words)[2]).read_volatile(),
                (&raw const (*words)[3]).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn set_address(context: &SockAddrContext, address: Address) {
        let [a, b, c, d] = address.words();
        // SAFETY: as for V4; volatile as above.
        unsafe {
            let words = &raw mut (*context.sock_addr).user_ip6;
            (&raw mut (*words)[0]).write_volatile(a);
            (&raw mut (*words)[1]).write_volatile(b);
            (&raw mut (*words)[2]).write_volatile(c);
            (&raw mut (*words)[3]).write_volatile(d);
        }
    }
}

/// The address, port and protocol that the call names.
#[inline(always)]
pub(crate) fn destination<F: Family>(context: &SockAddrContext, protocol: u8) -> Destination {
    Destination::new(F::address(context), port(context), protocol)
}

/// Replaces the address and port.
#[inline(always)]
pub(crate) fn rewrite<F: Family>(context: &SockAddrContext, address: Address, port: Port) {
    F::set_address(context, address);
    // SAFETY: as for the address. The field is a 32-bit one that holds the 16 bits of `sin_port`.
    unsafe { (*context.sock_addr).user_port = u32::from(port.word()) };
}

/// `IPPROTO_*` of the socket.
#[inline(always)]
pub(crate) fn protocol(context: &SockAddrContext) -> u32 {
    // SAFETY: as for the address.
    unsafe { (*context.sock_addr).protocol }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the field holds 16 bits")]
fn port(context: &SockAddrContext) -> Port {
    // SAFETY: as for the address.
    Port::from_word(unsafe { (*context.sock_addr).user_port } as u16)
}
