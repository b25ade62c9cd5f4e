//! Forwarding to real sockets on loopback.

mod server;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::{sleep, timeout};

use self::server::{Manner, Server, name};
use super::{
    Answer, Config, Flags, Forwarder, MAX_IN_FLIGHT, PATIENCE, Pace, Status, UpstreamState,
};

/// Silence is known soon, and never forgotten.
const QUICK: Pace = Pace {
    patience: PATIENCE,
    head_start: Duration::from_millis(50),
    spare: Duration::from_secs(3600),
    look: Duration::ZERO,
    probe_pause: Duration::from_millis(50),
    longest_probe_pause: Duration::from_millis(50),
};

/// For what happens, on whatever machine.
const LONG: Duration = Duration::from_secs(60);

fn forwarder(servers: &[&Server], pace: Pace) -> Forwarder {
    let upstreams = servers.iter().map(|server| server.address).collect();
    Forwarder::with_pace(Config { upstreams, resolv_conf: PathBuf::new() }, pace)
}

fn query(text: &str) -> Query {
    Query::query(name(text), RecordType::A)
}

async fn ask(forwarder: &Forwarder, text: &str) -> Answer {
    let asked = timeout(LONG, forwarder.ask(&query(text), Flags::default())).await;
    asked.expect("every question is answered")
}

/// What was answered: a code, and numbers of records.
fn shape(answer: &Answer) -> (ResponseCode, usize, usize) {
    (answer.code, answer.answers.len(), answer.authorities.len())
}

fn ttls(answer: &Answer) -> Vec<u32> {
    answer.answers.iter().chain(&answer.authorities).map(|record| record.ttl).collect()
}

fn states(status: &Status) -> Vec<UpstreamState> {
    status.upstreams.iter().map(|upstream| upstream.state.clone()).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

const SUCCESS: (ResponseCode, usize, usize) = (ResponseCode::NoError, 1, 0);

#[test]
fn patience_ends_before_that_of_resolvers() {
    assert!(PATIENCE < Duration::from_secs(5));
    assert!(Pace::DEFAULT.head_start < PATIENCE / 4);
}

#[tokio::test]
async fn an_answer_is_remembered_and_its_ttl_runs_down() {
    let server = Server::start(Manner::Addresses(1, 300)).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    assert_eq!(forwarder.cached(&query("a.example.")), None);
    let answer = ask(&forwarder, "a.example.").await;
    assert_eq!((shape(&answer), ttls(&answer)), (SUCCESS, vec![300]));
    sleep(Duration::from_millis(1100)).await;
    let cached = forwarder.cached(&query("A.Example.")).expect("known in any case of letters");
    assert!(ttls(&cached)[0] < 300, "{cached:?}");
    assert_eq!(shape(&cached), SUCCESS);
    let other = Query::query(name("a.example."), RecordType::AAAA);
    assert_eq!(forwarder.cached(&other), None, "another type");
    assert_eq!(states(&forwarder.status()), [UpstreamState::Answers]);
}

#[tokio::test]
async fn what_may_be_remembered_is_bounded() {
    let server = Server::start(Manner::Silent).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    let week = 7 * 86_400;
    let day = 86_400;
    let rows = [
        ("week.example.", Manner::Addresses(1, week), vec![day], true),
        ("now.example.", Manner::Addresses(1, 0), vec![0], false),
        ("large.example.", Manner::Addresses(40, 300), vec![300; 40], false),
        ("none.example.", Manner::NoName(600, 30), vec![30], true),
        ("none2.example.", Manner::NoName(20, 600), vec![20], true),
        ("none3.example.", Manner::NoName(600, 0), vec![0], false),
        ("alias.example.", Manner::EmptyAlias(600, 30), vec![600, 30], true),
        ("failed.example.", Manner::Code(ResponseCode::ServFail), vec![], false),
    ];
    for (text, manner, expected, is_kept) in rows {
        server.set(manner);
        let answer = ask(&forwarder, text).await;
        assert_eq!(ttls(&answer), expected, "{text}");
        let cached = forwarder.cached(&query(text));
        assert_eq!(cached.is_some(), is_kept, "{text}");
        if let Some(cached) = cached {
            assert_eq!(shape(&cached), shape(&answer), "{text}");
            let longest = expected.into_iter().min().unwrap_or(0);
            assert!(ttls(&cached).into_iter().all(|ttl| ttl <= longest), "{text}: {cached:?}");
        }
    }
}

#[tokio::test]
async fn a_negative_answer_comes_with_its_code_and_authority() {
    let server = Server::start(Manner::NoName(600, 30)).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    let answer = ask(&forwarder, "none.example.").await;
    assert_eq!(shape(&answer), (ResponseCode::NXDomain, 0, 1));
    assert!(matches!(answer.authorities[0].data, RData::SOA(_)));
    server.set(Manner::EmptyAlias(600, 30));
    assert_eq!(shape(&ask(&forwarder, "alias.example.").await), (ResponseCode::NoError, 1, 1));
}

#[tokio::test]
async fn questions_with_flags_are_not_remembered() {
    let server = Server::start(Manner::Addresses(1, 300)).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    let dnssec = Flags { dnssec_ok: true, ..Flags::default() };
    let unchecked = Flags { checking_disabled: true, ..Flags::default() };
    for flags in [dnssec, unchecked] {
        assert_eq!(shape(&forwarder.ask(&query("a.example."), flags).await), SUCCESS);
        assert_eq!(forwarder.cached(&query("a.example.")), None, "{flags:?}");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_by_tcp() {
    let server = Server::start(Manner::Truncates).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    let answer = ask(&forwarder, "large.example.").await;
    assert_eq!(shape(&answer), (ResponseCode::NoError, 200, 0));
    assert_eq!((server.asked("udp"), server.asked("tcp")), (1, 1));
}

#[tokio::test]
async fn an_upstream_without_edns_is_asked_without() {
    let server = Server::start(Manner::OldFashioned).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    assert_eq!(shape(&ask(&forwarder, "a.example.").await), SUCCESS);
}

#[tokio::test]
async fn a_silent_upstream_holds_up_one_question_and_not_all() {
    let silent = Server::start(Manner::Silent).await;
    let good = Server::start(Manner::Addresses(1, 300)).await;
    let forwarder = forwarder(&[&silent, &good], QUICK);
    for text in ["a.example.", "b.example.", "c.example.", "d.example."] {
        assert_eq!(shape(&ask(&forwarder, text).await), SUCCESS, "{text}");
    }
    assert_eq!((silent.asked("udp"), good.asked("udp")), (1, 4));
    let says_so = || matches!(states(&forwarder.status())[0], UpstreamState::Silent(_));
    eventually("its silence is in the status", says_so).await;
}

#[tokio::test]
async fn an_upstream_that_was_silent_is_tried_again() {
    let silent = Server::start(Manner::Silent).await;
    let good = Server::start(Manner::Addresses(1, 300)).await;
    let forwarder = forwarder(&[&silent, &good], Pace { spare: Duration::ZERO, ..QUICK });
    assert_eq!(shape(&ask(&forwarder, "a.example.").await), SUCCESS);
    silent.set(Manner::Addresses(1, 300));
    // What it did not hear while it was silent runs out first.
    assert_eq!(shape(&ask(&forwarder, "b.example.").await), SUCCESS);
    assert_eq!(silent.asked("udp"), 2);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_known_at_once() {
    let gone = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("it is bound")
    };
    let good = Server::start(Manner::Addresses(1, 300)).await;
    let config = Config { upstreams: vec![gone, good.address], resolv_conf: PathBuf::new() };
    let patient = Pace { head_start: LONG * 2, ..Pace::DEFAULT };
    let forwarder = Forwarder::with_pace(config, patient);
    assert_eq!(shape(&ask(&forwarder, "a.example.").await), SUCCESS);
    let states = states(&forwarder.status());
    assert!(
        matches!(&states[0], UpstreamState::Silent(why) if why.contains("reached")),
        "{states:?}"
    );
}

#[tokio::test]
async fn a_refusal_leads_to_the_next_upstream() {
    for code in [ResponseCode::Refused, ResponseCode::ServFail, ResponseCode::NotImp] {
        let bad = Server::start(Manner::Code(code)).await;
        let good = Server::start(Manner::Addresses(1, 300)).await;
        let both = forwarder(&[&bad, &good], Pace { head_start: LONG * 2, ..Pace::DEFAULT });
        assert_eq!(shape(&ask(&both, "a.example.").await), SUCCESS, "{code}");
        let alone = forwarder(&[&bad], Pace::DEFAULT);
        assert_eq!(shape(&ask(&alone, "a.example.").await), (code, 0, 0));
        assert_eq!(states(&alone.status()), [UpstreamState::Refuses(code.to_string())]);
    }
}

#[tokio::test]
async fn every_upstream_is_asked_before_the_client_hears_servfail() {
    let silent = Server::start(Manner::Silent).await;
    let bad = Server::start(Manner::Code(ResponseCode::ServFail)).await;
    let good = Server::start(Manner::Addresses(1, 300)).await;
    let all = forwarder(&[&silent, &bad, &good], QUICK);
    assert_eq!(shape(&ask(&all, "a.example.").await), SUCCESS);
    assert_eq!(shape(&ask(&all, "b.example.").await), SUCCESS);
    assert_eq!(silent.asked("udp"), 1);
}

#[tokio::test]
async fn without_an_answer_the_client_hears_servfail_within_its_patience() {
    let server = Server::start(Manner::Silent).await;
    let pace = Pace { patience: Duration::from_millis(300), ..Pace::DEFAULT };
    let forwarder = forwarder(&[&server], pace);
    assert_eq!(shape(&ask(&forwarder, "a.example.").await), (ResponseCode::ServFail, 0, 0));
    assert_eq!(forwarder.cached(&query("a.example.")), None);
}

#[tokio::test]
async fn questions_in_flight_are_bounded() {
    let server = Server::start(Manner::Silent).await;
    let forwarder = Arc::new(forwarder(&[&server], Pace { patience: LONG * 10, ..Pace::DEFAULT }));
    let asked: Vec<_> = (0..MAX_IN_FLIGHT)
        .map(|_| {
            let forwarder = forwarder.clone();
            tokio::spawn(async move { ask(&forwarder, "a.example.").await })
        })
        .collect();
    eventually("all are in flight", || forwarder.in_flight.available_permits() == 0).await;
    assert_eq!(ask(&forwarder, "b.example.").await.code, ResponseCode::ServFail);
    assert!(asked.iter().all(|task| !task.is_finished()), "the others still wait");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_upstream_that_leads_back_is_found_left_and_taken_again_when_mended() {
    let server = Server::start(Manner::Silent).await;
    let forwarder = Arc::new(forwarder(&[&server], QUICK));
    server.set(Manner::Back(Arc::downgrade(&forwarder)));
    assert_eq!(ask(&forwarder, "a.example.").await.code, ResponseCode::ServFail);
    let is_loop = || states(&forwarder.status()) == [UpstreamState::Loops];
    eventually("the loop is found", is_loop).await;
    let status = forwarder.status();
    assert!(status.problem.is_some(), "{status:?}");

    let before = server.asked("udp");
    assert_eq!(ask(&forwarder, "b.example.").await.code, ResponseCode::ServFail);
    assert_eq!(server.asked("udp"), before, "it is not asked");

    server.set(Manner::Addresses(1, 300));
    eventually("it is mended", || !is_loop()).await;
    assert_eq!(shape(&ask(&forwarder, "c.example.").await), SUCCESS);
    assert_eq!(forwarder.status().problem, None);
}

#[tokio::test]
async fn strange_questions_are_no_probes() {
    let server = Server::start(Manner::Addresses(1, 300)).await;
    let forwarder = forwarder(&[&server], Pace::DEFAULT);
    ask(&forwarder, "a.example.").await;
    for text in ["a.example.", "0123456789abcdef.0123456789abcdef."] {
        assert!(!forwarder.recognise(&Query::query(name(text), RecordType::HINFO)), "{text}");
    }
    assert_eq!(states(&forwarder.status()), [UpstreamState::Answers]);
}

#[tokio::test]
async fn this_server_itself_is_never_asked() {
    let own = Server::start(Manner::Addresses(1, 300)).await;
    let other = Server::start(Manner::Addresses(2, 300)).await;
    let any = SocketAddr::new([0, 0, 0, 0].into(), own.address.port());
    for address in [own.address, any] {
        let both = forwarder(&[&own, &other], Pace::DEFAULT);
        both.set_own(vec![address]);
        assert_eq!(shape(&ask(&both, "a.example.").await), (ResponseCode::NoError, 2, 0));
        let alone = forwarder(&[&own], Pace::DEFAULT);
        alone.set_own(vec![address]);
        assert_eq!(ask(&alone, "a.example.").await.code, ResponseCode::ServFail);
        let status = alone.status();
        assert_eq!(states(&status), [UpstreamState::Own]);
        assert!(status.problem.is_some());
        alone.set_own(Vec::new());
        assert_eq!(shape(&ask(&alone, "a.example.").await), SUCCESS, "no longer its own");
    }
    assert_eq!(own.asked("udp"), 1);
}

/// Replaces a file as editors and DHCP clients do.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).expect("the directory is writable");
    fs::rename(&draft, path).expect("the directory is writable");
}

#[tokio::test]
async fn resolv_conf_is_followed() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let path = directory.path().join("resolv.conf");
    let config = Config { upstreams: Vec::new(), resolv_conf: path.clone() };
    let forwarder = Forwarder::with_pace(config, QUICK);
    assert_eq!(ask(&forwarder, "a.example.").await.code, ResponseCode::ServFail);
    let problem = forwarder.status().problem.expect("there is no file");
    assert!(problem.contains("resolv.conf"), "{problem}");
    let rows: [(&str, &[&str]); 5] = [
        ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", &["192.0.2.1:53", "[2001:db8::1]:53"]),
        ("# none\nsearch example\n", &[]),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.1\n", &["192.0.2.1:53"]),
        ("nameserver fe80::1%lo\nnameserver fe80::2%7\n", &["[fe80::1%1]:53", "[fe80::2%7]:53"]),
        ("nameserver fe80::1%nosuch\nnameserver x\nnameserver 192.0.2.2", &["192.0.2.2:53"]),
    ];
    for (text, expected) in rows {
        replace(&path, text);
        let status = forwarder.status();
        let listed: Vec<_> =
            status.upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
        assert_eq!(listed, expected, "{text}");
        assert_eq!(status.problem.is_some(), expected.is_empty(), "{text}");
    }
    fs::remove_file(&path).expect("it is there");
    assert_eq!(forwarder.status().upstreams, []);
}
