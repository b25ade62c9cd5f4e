//! What an upstream answered, and the cache of it.

use std::time::Instant;

use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinEncodable as _;
use hickory_resolver::{MAX_TTL, ResponseCache, TtlConfig};

/// An answer to be given on. TTLs are in seconds and what is left, at most a day.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The response code.
    pub code: ResponseCode,
    /// Whether the upstream says that it validated the records (AD). Negative answers: never said.
    pub authentic_data: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section: for a negative answer, the SOA record that bounds its life.
    pub authorities: Vec<Record>,
    /// The additional section, without EDNS.
    pub additionals: Vec<Record>,
}

impl Answer {
    /// Nothing but a code.
    pub(crate) fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            authentic_data: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    fn of_message(message: Message) -> Self {
        Self {
            code: message.metadata.response_code,
            authentic_data: message.metadata.authentic_data,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
        }
    }

    /// The library takes an answer without records apart.
    fn of_no_records(negative: NoRecords) -> Self {
        let authorities = match (negative.authorities, negative.soa) {
            (Some(records), _) => records.to_vec(),
            (None, Some(soa)) => vec![soa.into_record_of_rdata()],
            (None, None) => Vec::new(),
        };
        Self { authorities, ..Self::empty(negative.response_code) }
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.answers.iter().chain(&self.authorities).chain(&self.additionals)
    }

    fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.answers.iter_mut().chain(&mut self.authorities).chain(&mut self.additionals)
    }

    /// Seconds that the absence of records may be remembered (RFC 2308, section 5).
    fn negative_ttl(&self) -> Option<u32> {
        self.authorities.iter().find_map(|record| {
            let RData::SOA(soa) = &record.data else { return None };
            Some(record.ttl.min(soa.minimum))
        })
    }

    /// Whether it says that there is nothing of the type asked for, be it at the end of aliases.
    fn is_negative(&self, query: &Query) -> bool {
        let wanted = query.query_type();
        let is_wanted = |record: &Record| record.record_type() == wanted;
        wanted != RecordType::ANY && !self.answers.iter().any(is_wanted)
    }

    /// Bounds TTLs: to a day, and to the life of the absence that the answer ends in.
    fn bound_ttls(&mut self, query: &Query) {
        let negative = self.is_negative(query).then(|| self.negative_ttl().unwrap_or(0));
        for record in self.records_mut() {
            record.ttl = record.ttl.min(MAX_TTL);
            let is_soa = record.record_type() == RecordType::SOA;
            if let Some(ttl) = negative.filter(|_| is_soa) {
                record.ttl = record.ttl.min(ttl);
            }
        }
    }
}

/// Takes what a pool of name servers gave: an answer, positive or negative, or why there is none.
pub(super) fn read(query: &Query, result: Result<Message, NetError>) -> Result<Answer, NetError> {
    let mut answer = match result {
        Ok(message) => Answer::of_message(message),
        Err(NetError::Dns(DnsError::NoRecordsFound(negative))) => Answer::of_no_records(negative),
        Err(error) => return Err(error),
    };
    answer.bound_ttls(query);
    Ok(answer)
}

/// Answers, each as long as it lives.
pub(super) struct Cache(ResponseCache);

/// How many answers are kept. One takes a kilobyte or two, and seven where somebody means harm.
const MAX_ANSWERS: u64 = 10_000;
/// Answers of more records are not kept. They are rare; a record takes 272 bytes, beside its names.
const MAX_RECORDS: usize = 16;
/// Likewise, in bytes of uncompressed records.
const MAX_BYTES: usize = 2048;

impl Cache {
    pub(super) fn new() -> Self {
        Self(ResponseCache::new(MAX_ANSWERS, TtlConfig::default()))
    }

    pub(super) fn get(&self, query: &Query) -> Option<Answer> {
        read(query, self.0.get(query, Instant::now())?).ok()
    }

    /// Keeps an answer, if its TTLs and size allow it.
    pub(super) fn insert(&self, query: &Query, answer: &Answer) {
        let negative = answer.is_negative(query).then(|| answer.negative_ttl().unwrap_or(0));
        if negative == Some(0) || !is_small(answer) {
            return;
        }
        let entry = match negative {
            Some(ttl) if answer.answers.is_empty() => {
                let mut none = NoRecords::new(query.clone(), answer.code);
                none.negative_ttl = Some(ttl);
                none.authorities = Some(answer.authorities.as_slice().into());
                Err(none.into())
            }
            _ => {
                let mut message = Message::query();
                message.metadata.response_code = answer.code;
                message.metadata.authentic_data = answer.authentic_data;
                message.answers.clone_from(&answer.answers);
                message.authorities.clone_from(&answer.authorities);
                message.additionals.clone_from(&answer.additionals);
                // Aliases do not outlive the absence that they lead to.
                for alias in message.answers.iter_mut().filter(|_| negative.is_some()) {
                    alias.ttl = alias.ttl.min(negative.unwrap_or(0));
                }
                Ok(message)
            }
        };
        self.0.insert(query.clone(), entry, Instant::now());
    }
}

fn is_small(answer: &Answer) -> bool {
    let mut bytes = 0;
    let mut records = 0;
    answer.records().all(|record| {
        records += 1;
        bytes += record.to_bytes().map_or(MAX_BYTES, |bytes| bytes.len());
        records <= MAX_RECORDS && bytes <= MAX_BYTES
    })
}
