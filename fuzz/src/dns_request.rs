//! The road of a DNS request: from the bytes of a packet to those of the response.
//!
//! What is checked is what everyone may rely on, whatever is asked: no panic, no amplification beyond
//! what the asker can take (RFC 1035 section 4.2.1, RFC 6891 section 6.2.5), no answer to an answer.

use std::net::SocketAddr;
use std::sync::LazyLock;

use hickory_server::proto::op::{Message, MessageType, Query};
use hickory_server::proto::serialize::binary::{BinDecodable, BinDecoder};
use lb_userspace::dns::{ForwardConfig, Host, Names, Reply, Responder, Transport, Zones};
use lb_userspace::object::{Key, Kind};
use lb_userspace::plan::Protocol;
use lb_userspace::store::model::SlicePort;

/// Bytes of a header.
const HEADER: usize = 12;
/// What a UDP response may be without EDNS.
const PLAIN: usize = 512;
/// What a UDP response may be at the most: what passes every network unfragmented.
const LARGEST: usize = 1232;

/// Checks the response to a packet, over both transports.
///
/// # Panics
///
/// If the response is not one that may be given.
pub fn check(packet: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        if let Some(response) = respond(packet, transport) {
            let fault = fault(packet, transport, &response);
            assert_eq!(fault, None, "{transport:?}: {packet:02x?} is answered {response:02x?}");
        }
    }
}

/// The server's answer; none if it gives none, or must ask elsewhere for it.
fn respond(packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    static RESPONDER: LazyLock<Responder> = LazyLock::new(responder);
    let source = SocketAddr::from(([10, 0, 0, 1], 4_000));
    match RESPONDER.respond(packet.to_vec(), source, transport, true) {
        Reply::Now(response) => Some(response),
        Reply::None | Reply::Later(_) => None,
    }
}

/// One Service of each kind, with more endpoints than fit into a datagram; nobody is upstream.
fn responder() -> Responder {
    let domain = "cluster.local.".parse().expect("a name");
    let zones = Zones::new(&domain, 5, vec!["10.96.0.0/12".parse().expect("a range")]);
    let ports = [SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80 }];
    let host = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let hostname = n.is_multiple_of(2).then(|| format!("host-{n}").into());
        Host { hostname, address: [10, 1, high, low].into(), ports: ports.clone().into() }
    };
    let addresses = ["10.96.0.20".parse().expect("an address")].into();
    for (name, names) in [
        ("web", Names::Virtual { addresses, ports: ports.clone().into() }),
        ("db", Names::headless((0..300).map(host).collect())),
        ("in", Names::Alias("web.default.svc.cluster.local.".parse().expect("a name"))),
        ("loop", Names::Alias("loop.default.svc.cluster.local.".parse().expect("a name"))),
        ("out", Names::Alias("db.example.com.".parse().expect("a name"))),
    ] {
        zones.set(vec![(&Key::new(Kind::Service, "default", name), Some(names))]);
    }
    zones.set_complete();
    let nobody = ForwardConfig { upstreams: Vec::new(), resolv_conf: "/nonexistent".into() };
    Responder::new(zones, nobody)
}

/// Says what is wrong with a response, if anything is.
fn fault(packet: &[u8], transport: Transport, response: &[u8]) -> Option<&'static str> {
    let Some(header) = packet.get(..HEADER) else {
        return Some("a packet without a whole header is answered");
    };
    if header[2] & 0x80 != 0 {
        return Some("a response is answered");
    }
    // A packet that cannot be read as a whole may still have a question that can.
    let request = Message::from_vec(packet).ok();
    if response.len() > limit(request.as_ref(), transport) {
        return Some("it is larger than was asked for");
    }
    let Ok(answer) = Message::from_vec(response) else {
        return Some("it cannot be parsed");
    };
    if response[..2] != header[..2] {
        return Some("it has another id");
    }
    if answer.metadata.message_type != MessageType::Response {
        return Some("it is no response");
    }
    let question = first_question(packet);
    if let [echo] = answer.queries.as_slice()
        && !question.as_ref().is_some_and(|question| is_same(question, echo))
    {
        return Some("it repeats another question");
    }
    if let Some(request) = request {
        if request.queries.len() == 1 && answer.queries.len() != 1 {
            return Some("it does not repeat the question");
        }
        if request.edns.is_none() && answer.edns.is_some() {
            return Some("it has an OPT record, and the question had none");
        }
    }
    None
}

/// How large a response may be. Whoever sends what cannot be read has not asked for more.
fn limit(request: Option<&Message>, transport: Transport) -> usize {
    if transport == Transport::Tcp {
        return usize::from(u16::MAX);
    }
    request.map_or(PLAIN, |request| usize::from(request.max_payload()).clamp(PLAIN, LARGEST))
}

fn first_question(packet: &[u8]) -> Option<Query> {
    let mut decoder = BinDecoder::new(packet);
    decoder.read_slice(HEADER).ok()?;
    Query::read(&mut decoder).ok()
}

/// Whether two questions are the same, in the letters of the name, too: clients compare them to tell a
/// forged response.
fn is_same(question: &Query, echo: &Query) -> bool {
    question.name.eq_case(&echo.name)
        && question.query_type == echo.query_type
        && question.query_class == echo.query_class
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    fn seed(name: &str) -> Vec<u8> {
        let found = seeds::dns_requests().into_iter().find(|(seed, _)| *seed == name);
        found.unwrap_or_else(|| panic!("no seed {name}")).1
    }

    /// A response to the seed that holds its header and question only.
    fn bare(name: &str) -> Vec<u8> {
        let request = Message::from_vec(&seed(name)).expect("the seed can be read");
        let mut response = request.into_response();
        response.edns = None;
        response.to_vec().expect("the response can be written")
    }

    #[test]
    fn a_response_that_repeats_id_and_question_is_right() {
        assert_eq!(fault(&seed("a"), Transport::Udp, &bare("a")), None);
        assert_eq!(fault(&seed("a-edns-4096"), Transport::Udp, &bare("a-edns-4096")), None);
    }

    #[test]
    fn each_fault_is_found() {
        let found = |packet: &str, response: &[u8]| fault(&seed(packet), Transport::Udp, response);
        let changed = |index: usize, mask: u8| {
            let mut response = bare("a");
            response[index] ^= mask;
            response
        };
        assert_eq!(found("a", &changed(0, 1)), Some("it has another id"));
        assert_eq!(found("a", &changed(2, 0x80)), Some("it is no response"));
        // An upper-case letter instead of the lower-case one.
        assert_eq!(found("a", &changed(HEADER + 1, 0x20)), Some("it repeats another question"));
        assert_eq!(found("a", &bare("a")[..20]), Some("it cannot be parsed"));
        assert_eq!(found("response", &bare("a")), Some("a response is answered"));
        let short = "a packet without a whole header is answered";
        assert_eq!(found("header-truncated", &bare("a")), Some(short));
        let empty = [&bare("a")[..4], &[0; 8]].concat();
        assert_eq!(found("a", &empty), Some("it does not repeat the question"));
        let with_edns = Message::from_vec(&seed("a-edns-4096")).expect("the seed can be read");
        let with_edns = with_edns.into_response().to_vec().expect("the response can be written");
        let opt = "it has an OPT record, and the question had none";
        assert_eq!(found("a", &with_edns), Some(opt));
        for (packet, limit) in [("a", 512), ("a-edns-4096", 1232), ("a-edns-0", 512)] {
            let large = vec![0; limit + 1];
            assert_eq!(found(packet, &large), Some("it is larger than was asked for"), "{packet}");
            assert_eq!(found(packet, &large[1..]), Some("it has another id"), "{packet}");
        }
    }

    #[test]
    fn every_packet_of_the_corpus_is_answered_as_it_may_be() {
        for (file, packet) in seeds::corpus("dns_request") {
            println!("{}", file.display());
            check(&packet);
        }
    }
}
