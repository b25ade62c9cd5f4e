//! Packets for the DNS server, as strangers may send them.

#![no_main]

libfuzzer_sys::fuzz_target!(|packet: &[u8]| lb_fuzz::dns_request::check(packet));
