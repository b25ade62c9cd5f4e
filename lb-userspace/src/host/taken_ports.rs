//! Ports that sockets of this network namespace have already.

use std::collections::BTreeSet;
use std::fs;

use super::PortRange;

/// Below `/proc`: sockets of the namespace that the thread is in.
const LISTS: [&str; 4] = ["tcp", "tcp6", "udp", "udp6"];

/// Which of these ports sockets have. A list that cannot be read names none: a kernel without IPv6 has two.
pub fn taken_ports(range: PortRange) -> BTreeSet<u16> {
    let lists = LISTS
        .iter()
        .filter_map(|list| fs::read_to_string(format!("/proc/thread-self/net/{list}")).ok());
    lists.flat_map(|list| ports(&list)).filter(|port| range.contains(*port)).collect()
}

/// The local ports of a list: the second word of each line but the first, behind the colon (Documentation/networking/proc_net_tcp.rst).
fn ports(list: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    list.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn sockets_of_both_protocols_and_families_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("[::1]:0").expect("a port");
        let ends = [tcp.local_addr(), udp.local_addr()].map(|end| end.expect("it is bound").port());
        let all = PortRange::new(1, u16::MAX).expect("a range");
        let taken = taken_ports(all);
        assert!(ends.iter().all(|port| taken.contains(port)), "{ends:?} of {taken:?}");
        let one = PortRange::new(ends[0], ends[0]).expect("a range");
        assert_eq!(taken_ports(one), BTreeSet::from([ends[0]]));
    }
}
