//! The packet that a TC program is called for: reading it, and doing to it what was decided.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
    bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use lb_common::packet::edit::{Rewrite, Store, Sum, SumKind};
use lb_common::packet::{MAX_SUM, Packet};
use lb_common::path::packet::Link;
use lb_common::path::packet::answer::Answer;

/// The packet. Every access is a helper's: it may lie in fragments of memory.
#[derive(Clone, Copy)]
pub(crate) struct Skb {
    skb: *mut __sk_buff,
    /// Memory for [`Packet::sum`].
    bytes: *mut [u32; MAX_SUM as usize / 4],
}

impl Packet for Skb {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "N is at most ten")]
    fn words<const N: usize>(&self, offset: u16) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        self.load(offset, words.as_mut_ptr().cast(), size_of::<[u32; N]>() as u32)?;
        // SAFETY: the helper has written all of it.
        Some(unsafe { words.assume_init() })
    }

    #[inline(always)]
    fn sum(&self, offset: u16, length: u16) -> Option<u32> {
        let length = u32::from(length);
        if length == 0 || length > u32::from(MAX_SUM) {
            return None;
        }
        self.load(offset, self.bytes.cast(), length)?;
        // SAFETY: the helper reads so many bytes of memory that has as many.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, self.bytes.cast(), length, 0) };
        u32::try_from(sum).ok()
    }
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff, bytes: &mut [u32; MAX_SUM as usize / 4]) -> Self {
        Self { skb, bytes }
    }

    /// Carries out a rewrite.
    #[inline(always)]
    pub(crate) fn rewrite(&self, rewrite: &Rewrite) -> Option<()> {
        let [pseudo, covered] = &rewrite.sums;
        self.sum_up(pseudo)?;
        self.sum_up(covered)?;
        for store in &rewrite.stores {
            self.put(store)?;
        }
        Some(())
    }

    /// Exchanges the Ethernet addresses, and sends the frame back where it came from.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "an action has 32 bits")]
    pub(crate) fn send_back(&self, link: Link) -> Option<i32> {
        if link == Link::Ethernet {
            let [a, b, c] = self.words::<3>(0)?;
            let halves = |word: u32| {
                let [a, b, c, d] = word.to_ne_bytes();
                ([a, b], [c, d])
            };
            let (b_low, b_high) = halves(b);
            let (a_low, a_high) = halves(a);
            let (c_low, c_high) = halves(c);
            let word = |[a, b]: [u8; 2], [c, d]: [u8; 2]| u32::from_ne_bytes([a, b, c, d]);
            let swapped = [word(b_high, c_low), word(c_high, a_low), word(a_high, b_low)];
            self.store::<12>(0, swapped.as_ptr().cast(), 0)?;
        }
        // SAFETY: the helper has no preconditions. It answers with the action for the kernel.
        Some(unsafe { bpf_redirect((*self.skb).ifindex, 0) } as i32)
    }

    /// Makes the frame its answer.
    #[inline(always)]
    pub(crate) fn answer(&self, answer: &Answer) -> Option<()> {
        let checksum = answer.checksum(self.is_partial(answer.probe_at)?);
        // SAFETY: the helpers have no preconditions but the program's own context.
        unsafe {
            done(bpf_skb_change_tail(self.skb, answer.length, 0))?;
            if answer.grow != 0 {
                let grow = i32::from(answer.grow);
                done(bpf_skb_adjust_room(self.skb, grow, BPF_ADJ_ROOM_MAC, 0))?;
            }
        }
        let (at, head) = (answer.head_at, answer.head.as_ptr().cast());
        const RECOMPUTE: u64 = BPF_F_RECOMPUTE_CSUM as u64;
        match answer.head_length {
            20 => self.store::<20>(at, head, RECOMPUTE)?,
            28 => self.store::<28>(at, head, RECOMPUTE)?,
            40 => self.store::<40>(at, head, RECOMPUTE)?,
            _ => self.store::<48>(at, head, RECOMPUTE)?,
        }
        if answer.tail_at != 0 {
            self.store::<20>(answer.tail_at, answer.tail.as_ptr().cast(), RECOMPUTE)?;
        }
        self.store::<2>(answer.checksum_at, (&raw const checksum).cast(), RECOMPUTE)
    }

    /// Whether the checksum here is still to be completed. No field that programs may read says so; but the kernel leaves
    /// such a checksum alone where bytes change that it covers (`inet_proto_csum_replace_by_diff`).
    #[inline(always)]
    fn is_partial(&self, at: u16) -> Option<bool> {
        if at == 0 {
            return Some(false);
        }
        let mut before = 0_u16;
        let mut after = 0_u16;
        self.load(at, (&raw mut before).cast(), 2)?;
        // SAFETY: the helper has no preconditions but the program's own context.
        done(unsafe { bpf_l4_csum_replace(self.skb, at.into(), 0, 1, 0) })?;
        self.load(at, (&raw mut after).cast(), 2)?;
        self.store::<2>(at, (&raw const before).cast(), 0)?;
        Some(before == after)
    }

    #[inline(always)]
    fn sum_up(&self, sum: &Sum) -> Option<()> {
        if sum.offset == 0 {
            return Some(());
        }
        let (at, delta) = (u32::from(sum.offset), u64::from(sum.delta.word()));
        let udp = if sum.udp != 0 { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        // SAFETY: the helpers have no preconditions but the program's own context.
        done(unsafe {
            match sum.kind {
                SumKind::Pseudo => {
                    bpf_l4_csum_replace(self.skb, at, 0, delta, udp | u64::from(BPF_F_PSEUDO_HDR))
                }
                SumKind::L4 => bpf_l4_csum_replace(self.skb, at, 0, delta, udp),
            }
        })
    }

    #[inline(always)]
    fn put(&self, store: &Store) -> Option<()> {
        let words = store.words.as_ptr().cast();
        let flags = if store.recompute != 0 { u64::from(BPF_F_RECOMPUTE_CSUM) } else { 0 };
        match store.length {
            0 => Some(()),
            2 => self.store::<2>(store.offset, words, flags),
            4 => self.store::<4>(store.offset, words, flags),
            12 => self.store::<12>(store.offset, words, flags),
            _ => self.store::<16>(store.offset, words, flags),
        }
    }

    #[inline(always)]
    fn load(&self, offset: u16, to: *mut c_void, length: u32) -> Option<()> {
        // SAFETY: every caller has so much memory there.
        done(unsafe { bpf_skb_load_bytes(self.skb.cast(), offset.into(), to, length) })
    }

    #[inline(always)]
    fn store<const N: u32>(&self, offset: u16, from: *const c_void, flags: u64) -> Option<()> {
        // SAFETY: every caller has so much memory there.
        done(unsafe { bpf_skb_store_bytes(self.skb, offset.into(), from, N, flags) })
    }
}

/// Whether a helper has done its work.
#[inline(always)]
fn done(result: i64) -> Option<()> {
    (result == 0).then_some(())
}
