//! The network namespace of [`lb_common::sim::world`], in which the kernel finds the routes that the simulator has.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use lb_common::sim::packet::Frame;
use lb_common::sim::world::DEVICES;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `job` in such a namespace, which ends with it. It gets the index of the device by which packets come.
pub(crate) fn within<T: Send + 'static>(job: impl FnOnce(u32) -> T + Send + 'static) -> T {
    let inside = move || {
        // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root may make a namespace");
        let device = set_up();
        job(device)
    };
    match std::thread::spawn(inside).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn set_up() -> u32 {
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ] {
        fs::write(format!("/proc/sys/net/{name}"), value).expect(name);
    }
    let [eth0, pods] = DEVICES;
    let mac = Frame::DESTINATION.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!(
        "link set lo up
        link add eth0 index {eth0} address {mac} type veth peer name far0
        link add pods index {pods} type veth peer name far1
        link set eth0 up
        link set far0 up
        link set pods up
        link set far1 up
        addr add 192.0.2.1/24 dev eth0
        addr add 2001:db8::1/112 dev eth0 nodad
        route add 10.244.2.0/24 dev eth0
        route add 2001:db8::2:0/112 dev eth0
        route add 10.244.1.0/24 dev pods
        route add 2001:db8::1:0/112 dev pods"
    ));
    eth0
}

fn ip(script: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip, of package iproute2, can be run");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(script.as_bytes()).expect("ip reads its script");
    drop(input);
    assert!(child.wait().expect("it was started").success(), "ip failed in:\n{script}");
}
