//! What is answered to whatever comes: by the rules, never with more than was asked for, and never
//! with a panic.

use hickory_server::proto::op::{Edns, Message, MessageType};
use hickory_server::proto::rr::rdata::opt::EdnsOption;
use proptest::prelude::*;

use super::*;
use crate::dns::ForwardConfig;
use crate::dns::names::Names;
use crate::object::{Key, Kind};
use crate::plan::Protocol;
use crate::store::model::SlicePort;

/// Answers for `web` (one address), `many` (headless, 300 endpoints), `in` (an alias of `web`), `loop`
/// (of itself) and `out` (of a name elsewhere); nobody is upstream.
fn responder() -> Responder {
    let domain: Name = "cluster.local.".parse().expect("a name");
    let zones = Zones::new(&domain, 5, vec!["10.96.0.0/12".parse().expect("a range")]);
    let key = |name: &str| Key::new(Kind::Service, "default", name);
    let ports = [SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80 }];
    let web = Names::Virtual {
        addresses: ["10.96.0.20".parse().expect("an address")].into(),
        ports: ports.clone().into(),
    };
    let many = (0..300_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        crate::dns::names::Host {
            hostname: None,
            address: [10, 1, high, low].into(),
            ports: ports.clone().into(),
        }
    });
    let alias = |target: &str| Some(Names::Alias(target.parse().expect("a name")));
    zones.set(vec![
        (&key("web"), Some(web)),
        (&key("many"), Some(Names::headless(many.collect()))),
        (&key("in"), alias("Web.default.svc.cluster.local.")),
        (&key("loop"), alias("loop.default.svc.cluster.local.")),
        (&key("out"), alias("db.example.com.")),
    ]);
    zones.set_complete();
    let nobody = ForwardConfig { upstreams: Vec::new(), resolv_conf: "/nonexistent".into() };
    Responder::new(zones, nobody)
}

fn source() -> SocketAddr {
    ([10, 0, 0, 1], 4_000).into()
}

fn question(name: &str, asked: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse().expect("a name"), asked));
    message
}

fn with_edns(mut message: Message, size: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size).set_version(version);
    message.edns = Some(edns);
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it can be written")
}

/// The answer at once to what came by `transport`, with its length.
fn now(responder: &Responder, packet: Vec<u8>, transport: Transport) -> Option<(Message, usize)> {
    match responder.respond(packet, source(), transport, true) {
        Reply::Now(bytes) => {
            let message = Message::from_vec(&bytes);
            Some((message.expect("an answer can be read"), bytes.len()))
        }
        Reply::None | Reply::Later(_) => None,
    }
}

fn udp(responder: &Responder, message: &Message) -> (Message, usize) {
    now(responder, bytes(message), Transport::Udp).expect("an answer")
}

fn code(responder: &Responder, message: &Message) -> ResponseCode {
    udp(responder, message).0.metadata.response_code
}

const WEB: &str = "wEb.default.svc.cluster.local.";
const MANY: &str = "many.default.svc.cluster.local.";

#[test]
fn an_answer_keeps_the_askers_case_and_is_compressed() {
    let (answer, length) = udp(&responder(), &question(WEB, RecordType::A));
    let name: Name = WEB.parse().expect("a name");
    assert!(answer.queries[0].name().eq_case(&name), "{answer}");
    assert!(answer.answers[0].name.eq_case(&name), "{answer}");
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert!(answer.edns.is_none(), "nobody asked for it");
    let question = bytes(&question(WEB, RecordType::A)).len();
    assert_eq!(length, question + 16, "a pointer, type, class, time, length, and an address");
}

#[test]
fn aliases_are_followed_within_the_zones_and_never_for_ever() {
    let responder = responder();
    let (answer, _) = udp(&responder, &question("in.default.svc.cluster.local.", RecordType::A));
    assert_eq!(answer.answers.len(), 2, "{answer}");
    let (answer, _) =
        udp(&responder, &question("in.default.svc.cluster.local.", RecordType::CNAME));
    assert_eq!(answer.answers.len(), 1, "{answer}");
    let (answer, _) = udp(&responder, &question("loop.default.svc.cluster.local.", RecordType::A));
    assert_eq!(answer.answers.len(), 1, "{answer}");
    let out = question("out.default.svc.cluster.local.", RecordType::A);
    let reply = responder.respond(bytes(&out), source(), Transport::Udp, true);
    assert!(matches!(reply, Reply::Later(pending) if pending.aliases.len() == 1));
}

#[test]
fn what_is_no_proper_question_is_told_so() {
    let responder = responder();
    let web = || question(WEB, RecordType::A);
    let mut two = web();
    two.add_query(Query::query(WEB.parse().expect("a name"), RecordType::AAAA));
    let mut none = web();
    none.queries.clear();
    let mut notify = web();
    notify.metadata.op_code = OpCode::Notify;
    let mut chaos = web();
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut no_recursion = question("example.com.", RecordType::A);
    no_recursion.metadata.recursion_desired = false;
    for (what, message, expected) in [
        ("two questions", two, ResponseCode::FormErr),
        ("no question", none, ResponseCode::FormErr),
        ("another operation", notify, ResponseCode::NotImp),
        ("another class", chaos, ResponseCode::Refused),
        ("a transfer", question("cluster.local.", RecordType::AXFR), ResponseCode::Refused),
        ("an increment", question("cluster.local.", RecordType::IXFR), ResponseCode::Refused),
        ("EDNS of the future", with_edns(web(), 1_232, 1), ResponseCode::BADVERS),
        ("elsewhere without recursion", no_recursion, ResponseCode::Refused),
    ] {
        assert_eq!(u16::from(code(&responder, &message)), u16::from(expected), "{what}");
    }
}

#[test]
fn a_stranger_is_refused_whatever_the_name() {
    let responder = responder();
    for name in [WEB, "example.com.", "20.0.96.10.in-addr.arpa."] {
        let packet = bytes(&question(name, RecordType::A));
        let asked = packet.len();
        match responder.respond(packet, source(), Transport::Udp, false) {
            Reply::Now(bytes) => {
                let answer = Message::from_vec(&bytes).expect("an answer can be read");
                assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name}");
                assert!(!answer.metadata.recursion_available && answer.answers.is_empty());
                assert!(bytes.len() <= asked, "no more than was sent");
            }
            other @ (Reply::None | Reply::Later(_)) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_question_for_everything_gets_one_small_record() {
    for name in [WEB, MANY, "example.com."] {
        let (answer, length) = udp(&responder(), &question(name, RecordType::ANY));
        assert_eq!(answer.answers.len(), 1, "{answer}");
        assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
        assert!(length < 100, "{length}");
    }
}

#[test]
fn an_answer_is_as_long_as_the_asker_takes_and_says_when_more_is_missing() {
    let responder = responder();
    let plain = question(MANY, RecordType::A);
    let asked = |size| with_edns(question(MANY, RecordType::A), size, 0);
    for (what, message, most) in [
        ("without EDNS", plain.clone(), 512),
        ("with a small EDNS size", asked(0), 512),
        ("with EDNS", asked(800), 800),
        ("with a huge EDNS size", asked(65_535), 1_232),
    ] {
        let (answer, length) = udp(&responder, &message);
        assert!(length <= most && length > most - 30, "{what}: {length}");
        assert!(answer.metadata.truncation, "{what}");
        assert!(!answer.answers.is_empty(), "{what}: some use what they get");
        assert_eq!(answer.edns.is_some(), message.edns.is_some(), "{what}");
    }
    let (answer, _) = now(&responder, bytes(&plain), Transport::Tcp).expect("an answer");
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (300, false));
}

#[test]
fn additional_records_are_left_out_without_a_word() {
    let message =
        with_edns(question("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV), 512, 0);
    let (answer, _) = udp(&responder(), &message);
    assert_eq!(answer.additionals.len(), 1, "there is room");
    assert!(!answer.metadata.truncation);
}

#[test]
fn what_cannot_be_read_is_answered_by_a_header_or_not_at_all() {
    let responder = responder();
    let good = bytes(&with_edns(question(WEB, RecordType::A), 1_232, 0));
    let header_only =
        |packet: Vec<u8>| match responder.respond(packet, source(), Transport::Udp, true) {
            Reply::Now(bytes) => {
                assert_eq!(bytes.len(), 12);
                Message::from_vec(&bytes).expect("a header").metadata.response_code
            }
            other @ (Reply::None | Reply::Later(_)) => panic!("{other:?}"),
        };
    for length in 12..good.len() {
        assert_eq!(header_only(good[..length].to_vec()), ResponseCode::FormErr, "{length} bytes");
    }
    for length in 0..12 {
        let reply = responder.respond(good[..length].to_vec(), source(), Transport::Udp, true);
        assert!(matches!(reply, Reply::None), "{length} bytes");
    }
    let mut answer = good.clone();
    answer[2] |= 0x80;
    let reply = responder.respond(answer, source(), Transport::Udp, true);
    assert!(matches!(reply, Reply::None), "an answer is never answered");
    // A name that points to itself, and one that is too long.
    let header = &good[..12];
    assert_eq!(header_only([header, &[0xc0, 12, 0, 1, 0, 1]].concat()), ResponseCode::FormErr);
    let label = [&[63_u8][..], &[b'a'; 63]].concat();
    let long = label.repeat(5);
    assert_eq!(header_only([header, &long, &[0, 0, 1, 0, 1]].concat()), ResponseCode::FormErr);
}

#[test]
fn the_longest_name_is_a_name() {
    let label = "a".repeat(63);
    // 3 × 64, 48 and the root's byte are 255 with the domain's 14.
    let name = format!("{label}.{label}.{label}.{}.cluster.local.", "b".repeat(47));
    let message = question(&name, RecordType::A);
    assert_eq!(message.queries[0].name().len(), 254, "and one for the root");
    assert_eq!(code(&responder(), &message), ResponseCode::NXDomain);
}

#[test]
fn unknown_options_and_types_are_no_fault() {
    let mut message = with_edns(question(WEB, RecordType::Unknown(4_711)), 1_232, 0);
    if let Some(edns) = &mut message.edns {
        edns.options_mut().insert(EdnsOption::Unknown(65_001, vec![1; 100]));
    }
    let (answer, _) = udp(&responder(), &message);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{answer}");
    assert_eq!(answer.authorities.len(), 1, "{answer}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_say_too_much(
        packet in proptest::collection::vec(any::<u8>(), 0..600),
        tcp in any::<bool>(),
    ) {
        obeys(packet, tcp);
    }

    #[test]
    fn no_damage_to_a_question_makes_it_panic_or_say_too_much(
        damage in proptest::collection::vec((0..200_usize, any::<u8>()), 0..6),
        name in prop_oneof![Just(WEB), Just(MANY), Just("example.com."), Just(".")],
        edns in proptest::option::of(any::<u16>()),
        tcp in any::<bool>(),
    ) {
        let message = question(name, RecordType::A);
        let message = match edns {
            Some(size) => with_edns(message, size, 0),
            None => message,
        };
        let mut packet = bytes(&message);
        for (at, byte) in damage {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        obeys(packet, tcp);
    }
}

/// What holds for every answer.
fn obeys(packet: Vec<u8>, tcp: bool) {
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let asked = packet.clone();
    let Reply::Now(bytes) = responder().respond(packet, source(), transport, true) else { return };
    assert_eq!(bytes[..2], asked[..2], "the same id");
    assert!(bytes[2] & 0x80 != 0 && asked[2] & 0x80 == 0, "an answer to a question");
    let most = if tcp { 65_535 } else { 1_232 };
    assert!(bytes.len() <= most, "{} bytes", bytes.len());
    Message::from_vec(&bytes).expect("an answer can be read");
}
