//! Packets of unusual form.

use alloc::vec;

use super::super::flows::Outcome::Goes;
use super::super::packet::{Frame, Ip, Payload};
use super::super::world::World;
use super::frames::{Message, packet};
use super::{Add, Step};
use crate::abi::protocol::TCP;
use crate::abi::{FrontendKind, Hook, Policy};
use crate::path::Reason;

const SYN: Message = Message::Tcp(2, b"");

pub(super) fn add(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let (client, pod) = ((who.client(), 5000), (who.local_pod(5), 8080));
    let vip = (who.cluster_ip(10), 80);
    let world = || {
        World::new(v4).service(
            1,
            FrontendKind::ClusterIp,
            (vip.0, 80, TCP),
            Policy::default(),
            &[pod.0],
        )
    };
    let syn = |to| packet(client, to, &SYN);
    let plain = Frame::new(syn(vip)).bytes();

    for tags in [vec![0x8100], vec![0x88a8, 0x8100]] {
        let tagged = |to| Frame { tags: tags.clone(), ..Frame::new(syn(to)) }.bytes();
        add(
            &alloc::format!("a packet with {} VLAN tags", tags.len()),
            world(),
            vec![Step::arrives(tagged(vip), Reason::Translated, Goes(tagged(pod)))],
        );
    }
    let padded = |to| Frame { padding: 6, ..Frame::new(syn(to)) }.bytes();
    add(
        "padding stays",
        world(),
        vec![Step::arrives(padded(vip), Reason::Translated, Goes(padded(pod)))],
    );
    let long = |to| {
        let payload = Payload::Tcp { ports: [5000, to], flags: 2, options: 10, data: vec![1; 3] };
        let (options, extensions) =
            if v4 { (10, vec![]) } else { (0, vec![(0, 0), (60, 1), (43, 2), (60, 0)]) };
        move |address| {
            let ip = Ip {
                options,
                extensions: extensions.clone(),
                ..Ip::new(client.0, address, payload.clone())
            };
            Frame::new(ip).bytes()
        }
    };
    add(
        "options and extension headers are passed over",
        world(),
        vec![Step::arrives(long(80)(vip.0), Reason::Translated, Goes(long(8080)(pod.0)))],
    );

    let cut = |length: usize| plain[..length].to_vec();
    let wrong = |at: usize, value: u8| {
        let mut frame = plain.clone();
        frame[at] = value;
        frame
    };
    let l4 = if v4 { 34 } else { 54 };
    add(
        "packets that end too early pass, and are counted",
        world(),
        vec![
            Step::passes(Hook::Ingress, cut(l4 + 19), Reason::Short),
            Step::passes(Hook::Egress, cut(l4 + 8), Reason::Short),
            Step::passes(Hook::Ingress, cut(l4), Reason::Short),
        ],
    );
    let cut_at = |lengths: &[usize]| {
        let passes = |hook| move |&length| Step::passes(hook, cut(length), Reason::Short);
        let ways = [Hook::Ingress, Hook::Egress];
        ways.into_iter().flat_map(|hook| lengths.iter().map(passes(hook))).collect()
    };
    add("frames without an IP header pass, and are counted", world(), cut_at(&[14]));
    add(
        "frames that end within their IP header pass, and are counted",
        world(),
        cut_at(&[15, 16, 18, l4 - 1]),
    );
    // The length of TCP's header, too small, and beyond the end.
    add(
        "packets that contradict themselves pass, and are counted",
        world(),
        vec![
            Step::passes(Hook::Ingress, wrong(l4 + 12, 0x40), Reason::Malformed),
            Step::passes(Hook::Ingress, wrong(l4 + 12, 0xf0), Reason::Short),
        ],
    );
    let mut arp = plain.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let other =
        Frame::new(Ip::new(client.0, vip.0, Payload::Other { protocol: 132, data: vec![0; 16] }));
    add(
        "other protocols are none of ours, and another version is none",
        world(),
        vec![
            Step::passes(Hook::Ingress, arp, Reason::NotService),
            Step::passes(Hook::Ingress, wrong(14, 0x50), Reason::Malformed),
            Step::passes(Hook::Ingress, other.bytes(), Reason::NotService),
        ],
    );
    if !v4 {
        let routed = Ip { extensions: vec![(43, 0)], ..syn(vip) };
        let mut routed = Frame::new(routed).bytes();
        routed[14 + 40 + 3] = 1;
        let many = Ip { extensions: vec![(60, 0); 9], ..syn(vip) };
        let mut mapped = plain.clone();
        mapped[14 + 8..14 + 24]
            .copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]);
        add(
            "headers that are not followed pass, and are counted",
            world(),
            vec![
                Step::passes(Hook::Ingress, routed, Reason::Unsupported),
                Step::passes(Hook::Ingress, Frame::new(many).bytes(), Reason::Unsupported),
                Step::passes(Hook::Ingress, mapped, Reason::Unsupported),
            ],
        );
    }
}
