//! Packets read and rewritten on the host by the code that the kernel runs.

mod checksum;
mod edit;
mod parse;
mod properties;
mod strategy;

use std::net::IpAddr;

use lb_common::abi::Address;
use lb_common::packet::{Parsed, Unparsed, parse_ethernet};
use lb_common::sim::packet::{Ip, Payload};

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, Unparsed> {
    let mut parsed = Parsed::NONE;
    parse_ethernet(bytes, &mut parsed).map(|()| parsed)
}

pub(crate) const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub(crate) const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

pub(crate) fn tcp([source, destination]: [&str; 2]) -> Ip {
    let payload = Payload::Tcp { ports: [40000, 80], flags: 0x12, options: 3, data: vec![7; 99] };
    Ip::new(address(source), address(destination), payload)
}

pub(crate) fn udp([source, destination]: [&str; 2]) -> Ip {
    let payload = Payload::Udp { ports: [40000, 53], checksum: true, data: vec![7; 33] };
    Ip::new(address(source), address(destination), payload)
}
