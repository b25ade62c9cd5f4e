//! What becomes of one request: an answer at once, an answer later, or none.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hickory_server::proto::op::{LowerQuery, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{CNAME, HINFO};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::Request;

use super::forward::{self, Flags, Forwarder};
use super::message::{self, Sections};
use super::metrics::{About, Metrics};
use super::zone::{Answer, Zone};
use super::{Transport, Zones, service};

/// So many aliases are followed from one to the next.
const MOST_ALIASES: usize = 8;

/// More records are not made for one answer: 65,535 bytes hold 4,094 addresses.
const MOST: usize = 4_094;

/// Likewise for a datagram, which holds fewer: what is left out makes it say that there are more.
const MOST_IN_DATAGRAM: usize = 100;

/// Answers requests.
#[derive(Debug)]
pub struct Responder {
    pub(super) zones: Zones,
    pub(super) forwarder: Forwarder,
    pub(super) metrics: Metrics,
    /// Where questions come to.
    listeners: Mutex<Vec<SocketAddr>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// No answer: it is no request.
    None,
    /// An answer.
    Now(Vec<u8>),
    /// An upstream server must be asked.
    Later(Box<Pending>),
}

/// A request that an upstream server must be asked for.
#[derive(Debug)]
pub struct Pending {
    request: Request,
    /// The aliases that led there.
    aliases: Vec<Record>,
    ask: Query,
    flags: Flags,
    since: Instant,
}

impl Responder {
    /// Answers from `zones`, and for names elsewhere as `forward` says.
    pub fn new(zones: Zones, forward: forward::Config) -> Self {
        let forwarder = Forwarder::new(forward);
        Self { zones, forwarder, metrics: Metrics::default(), listeners: Mutex::default() }
    }

    /// What becomes of `packet`. Only who is `trusted` gets answers; others are refused.
    pub fn respond(
        &self,
        packet: Vec<u8>,
        source: SocketAddr,
        transport: Transport,
        trusted: bool,
    ) -> Reply {
        let since = Instant::now();
        let Some(malformed) = message::bare(&packet, ResponseCode::FormErr) else {
            return Reply::None;
        };
        let one_question = packet[message::QUESTIONS] == [0, 1];
        // The library makes room for as many questions as the header says.
        let read = || Request::from_bytes(packet, source, transport).ok();
        let Some(request) = one_question.then(read).flatten() else {
            self.metrics.malformed();
            return Reply::Now(malformed);
        };
        let query = &request.queries.queries()[0];
        let (zone, reply) = match self.refuse(&request, query, trusted) {
            Some(code) => (About::Refused, Ok(Sections::code(code))),
            None => self.ask(&request, query),
        };
        match reply {
            Ok(sections) => {
                self.metrics.answered(zone, &request, sections.code, since);
                Reply::Now(message::encode(&request, &sections))
            }
            Err((aliases, ask)) => {
                let flags = flags(&request);
                Reply::Later(Box::new(Pending { request, aliases, ask, flags, since }))
            }
        }
    }

    /// The answer to a request that [`Self::respond`] put off.
    pub async fn finish(&self, pending: Pending) -> Vec<u8> {
        let Pending { request, aliases, ask, flags, since } = pending;
        self.know_thyself();
        let forwarded = self.forwarder.ask(&ask, flags).await;
        let sections = relay(&request, aliases, &ask, forwarded);
        self.metrics.answered(About::Forward, &request, sections.code, since);
        message::encode(&request, &sections)
    }

    /// The answer to a request that [`Self::respond`] put off, and for which there is no room.
    pub fn give_up(&self, pending: &Pending) -> Vec<u8> {
        let code = ResponseCode::ServFail;
        self.metrics.answered(About::Forward, &pending.request, code, pending.since);
        message::encode(&pending.request, &Sections::code(code))
    }

    /// Sets where questions come to, besides the ClusterIPs of the zones' server.
    pub(super) fn set_listeners(&self, listeners: Vec<SocketAddr>) {
        *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Tells the forwarder what leads back here: ClusterIPs may have come since the last time.
    fn know_thyself(&self) {
        let vips = self.zones.server_addresses().into_iter();
        let vips = vips.map(|address| SocketAddr::new(address, service::PORT));
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        self.forwarder.set_own(vips.chain(listeners.iter().copied()).collect());
    }

    /// Why a request is not even looked up.
    fn refuse(&self, request: &Request, query: &LowerQuery, trusted: bool) -> Option<ResponseCode> {
        if request.metadata.op_code != OpCode::Query {
            return Some(ResponseCode::NotImp);
        }
        if request.version() > 0 {
            return Some(ResponseCode::BADVERS);
        }
        let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
        let elsewhere = query.query_class() != DNSClass::IN;
        let returned = self.forwarder.recognise(query.original());
        (!trusted || transfer || elsewhere || returned).then_some(ResponseCode::Refused)
    }

    /// The answer to the one question of a request, or what must be asked elsewhere for it.
    fn ask(
        &self,
        request: &Request,
        query: &LowerQuery,
    ) -> (About, Result<Sections, (Vec<Record>, Query)>) {
        let most = if request.protocol() == Transport::Udp { MOST_IN_DATAGRAM } else { MOST };
        let found = self.look_up(query, most);
        if query.query_type() == RecordType::ANY {
            let (about, sections) = minimal(query, found);
            return (about, Ok(sections));
        }
        let (aliases, ask) = match found {
            Found::Here(sections) => return (label(query), Ok(sections)),
            Found::Elsewhere { aliases, ask } => (aliases, ask),
        };
        if !request.metadata.recursion_desired {
            let refused = aliases.is_empty().then_some(ResponseCode::Refused);
            let mut sections = Sections::code(refused.unwrap_or(ResponseCode::NoError));
            sections.authoritative = !aliases.is_empty();
            sections.answers = aliases;
            return (About::Forward, Ok(sections));
        }
        let flags = flags(request);
        if !flags.dnssec_ok
            && !flags.checking_disabled
            && let Some(cached) = self.forwarder.cached(&ask)
        {
            return (About::Forward, Ok(relay(request, aliases, &ask, cached)));
        }
        (About::Forward, Err((aliases, ask)))
    }

    /// Follows a name through the zones, from alias to alias.
    fn look_up(&self, query: &LowerQuery, most: usize) -> Found {
        let zone = self.zones.read();
        let mut aliases: Vec<Record> = Vec::new();
        let mut next: Option<LowerQuery> = None;
        loop {
            let query = next.as_ref().unwrap_or(query);
            let owner = query.original().name();
            let answer = zone.answer(query, most);
            if answer == Answer::Elsewhere {
                return Found::Elsewhere { aliases, ask: query.original().clone() };
            }
            let Answer::Alias(target) = answer else {
                return Found::Here(sections(&zone, owner, aliases, answer));
            };
            let alias = RData::CNAME(CNAME(target.clone()));
            aliases.push(Record::from_rdata(owner.clone(), zone.ttl(), alias));
            // One that leads back to itself leads nowhere.
            let is_loop = aliases.iter().any(|alias| alias.name == target);
            if query.query_type() == RecordType::CNAME || is_loop || aliases.len() > MOST_ALIASES {
                return Found::Here(authoritative(aliases));
            }
            next = Some(LowerQuery::query(Query::query(target, query.query_type())));
        }
    }
}

/// Where a name led.
enum Found {
    Here(Sections),
    Elsewhere { aliases: Vec<Record>, ask: Query },
}

/// What the zones say of `owner`, behind the aliases that led to it.
fn sections(zone: &Zone, owner: &Name, aliases: Vec<Record>, answer: Answer) -> Sections {
    let mut sections = authoritative(aliases);
    match answer {
        Answer::Found { records, additional } => {
            let record = |data| Record::from_rdata(owner.clone(), zone.ttl(), data);
            sections.answers.extend(records.into_iter().map(record));
            sections.additionals = additional;
        }
        Answer::NoData(soa) => sections.authorities = vec![*soa],
        Answer::NoName(soa) => {
            sections.code = ResponseCode::NXDomain;
            sections.authorities = vec![*soa];
        }
        Answer::NotYet => sections.code = ResponseCode::ServFail,
        // The caller follows these.
        Answer::Alias(_) | Answer::Elsewhere => {}
    }
    sections
}

/// An answer from the zones, to those who may ask for names elsewhere, too.
fn authoritative(answers: Vec<Record>) -> Sections {
    Sections {
        authoritative: true,
        recursion: true,
        answers,
        ..Sections::code(ResponseCode::NoError)
    }
}

/// What an upstream server said, behind the aliases that led there.
fn relay(
    request: &Request,
    aliases: Vec<Record>,
    ask: &Query,
    forwarded: forward::Answer,
) -> Sections {
    let asked = flags(request).dnssec_ok || request.metadata.authentic_data;
    let mut answers = aliases;
    let from_zone = !answers.is_empty();
    answers.extend(forwarded.answers.into_iter().map(|mut record| {
        // The letters are those of who asked first.
        if record.name == *ask.name() {
            record.name = ask.name().clone();
        }
        record
    }));
    Sections {
        code: forwarded.code,
        authoritative: from_zone,
        recursion: true,
        authentic: forwarded.authentic_data && asked && !from_zone,
        answers,
        authorities: forwarded.authorities,
        additionals: forwarded.additionals,
    }
}

/// The answer to a question for everything: one record that says no (RFC 8482, section 4.2), unless
/// there is no such name.
fn minimal(query: &LowerQuery, found: Found) -> (About, Sections) {
    let (about, mut sections) = match found {
        Found::Here(sections) => (label(query), sections),
        Found::Elsewhere { .. } => {
            let recursion = true;
            (About::Forward, Sections { recursion, ..Sections::code(ResponseCode::NoError) })
        }
    };
    if sections.code == ResponseCode::NoError {
        const SECONDS: u32 = 5;
        let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
        let name = query.original().name().clone();
        sections.answers = vec![Record::from_rdata(name, SECONDS, data)];
        sections.authorities = Vec::new();
    }
    (about, sections)
}

fn flags(request: &Request) -> Flags {
    Flags {
        dnssec_ok: request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
        checking_disabled: request.metadata.checking_disabled,
    }
}

fn label(query: &LowerQuery) -> About {
    if query.name().iter().next_back() == Some(b"arpa") { About::Reverse } else { About::Cluster }
}
