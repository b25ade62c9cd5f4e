//! Answers as bytes.

use hickory_server::proto::ProtoError;
use hickory_server::proto::op::{Edns, LowerQuery, Metadata, ResponseCode, emit_message_parts};
use hickory_server::proto::rr::Record;
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::Request;

use super::Transport;

/// Bytes of a message's header (RFC 1035, section 4.1.1).
pub(super) const HEADER: usize = 12;

/// Where it says how many questions follow.
pub(super) const QUESTIONS: std::ops::Range<usize> = 4..6;

/// Bytes of a request; a bigger one is no question.
pub(super) const MOST: usize = 4_096;

/// The most that is sent in one datagram, so that none is fragmented (DNS flag day 2020).
const DATAGRAM: u16 = 1_232;

/// What every resolver takes in one datagram (RFC 1035, section 4.2.1).
const SMALL_DATAGRAM: u16 = 512;

/// Bytes of an OPT record without options (RFC 6891, section 6.1.2).
const OPT: u16 = 11;

/// What is said to a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sections {
    /// Response code.
    pub(super) code: ResponseCode,
    /// Whether the answer is from a zone of our own.
    pub(super) authoritative: bool,
    /// Whether the asker may ask for names elsewhere.
    pub(super) recursion: bool,
    /// Whether an upstream server has verified it (RFC 4035).
    pub(super) authentic: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Sections {
    /// Nothing but a code.
    pub(super) const fn code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            recursion: false,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

/// The answer to a request that could be read. It is as long as the asker's transport and EDNS allow;
/// what does not fit is left out, and the answer says so (TC) unless it was only additional.
pub(super) fn encode(request: &Request, sections: &Sections) -> Vec<u8> {
    let limit = limit(request);
    let mut bytes = Vec::with_capacity(usize::from(SMALL_DATAGRAM));
    if emit(request, sections, limit, &mut bytes).is_err() {
        // Only a record that cannot be written leads here: of an upstream server, say.
        bytes = bare(request.as_slice(), ResponseCode::ServFail).unwrap_or_default();
    }
    bytes
}

/// An answer that is a header alone, to a request of which no more can be read than that. `None` if
/// not even that, or if it is an answer itself: answering those may never end.
pub(super) fn bare(request: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    const QR: u8 = 0x80;
    const OPCODE_AND_RD: u8 = 0x79;
    let header = request.get(..HEADER)?;
    if header[2] & QR != 0 {
        return None;
    }
    let mut bytes = vec![0; HEADER];
    bytes[..2].copy_from_slice(&header[..2]);
    bytes[2] = QR | (header[2] & OPCODE_AND_RD);
    bytes[3] = code.low();
    Some(bytes)
}

/// How long the answer may be, in bytes.
fn limit(request: &Request) -> u16 {
    if request.protocol() != Transport::Udp {
        return u16::MAX;
    }
    let asked = request.edns.as_ref().map_or(SMALL_DATAGRAM, Edns::max_payload);
    asked.clamp(SMALL_DATAGRAM, DATAGRAM)
}

fn emit(
    request: &Request,
    sections: &Sections,
    limit: u16,
    bytes: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    // The OPT record comes last and must not be what is left out (RFC 6891, section 7): its place is
    // kept, and it is written by hand.
    let room = if request.edns.is_some() { limit - OPT } else { limit };
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = sections.code;
    metadata.authoritative = sections.authoritative;
    metadata.recursion_available = sections.recursion;
    metadata.authentic_data = sections.authentic;
    let mut encoder = BinEncoder::new(bytes);
    encoder.set_max_size(room);
    // The server library would copy the question as it came, and then not find its name again for the
    // compression of the answer's.
    let header = emit_message_parts(
        &metadata,
        &mut request.queries.queries().iter().map(LowerQuery::original),
        &mut sections.answers.iter(),
        &mut sections.authorities.iter(),
        &mut sections.additionals.iter(),
        None,
        None,
        &mut encoder,
    )?;
    // What did not fit whole is still in the buffer in part.
    let end = encoder.offset();
    bytes.truncate(end);
    let whole = usize::from(header.counts.answers) == sections.answers.len()
        && usize::from(header.counts.authorities) == sections.authorities.len();
    if header.metadata.truncation && whole {
        // Only additional records are missing: that is no reason to ask again (RFC 2181, section 9).
        const TC: u8 = 0x02;
        bytes[2] &= !TC;
    }
    if let Some(edns) = &request.edns {
        append_opt(bytes, edns, sections.code);
    }
    Ok(())
}

/// Appends an OPT record and counts it.
fn append_opt(bytes: &mut Vec<u8>, asked: &Edns, code: ResponseCode) {
    const ADDITIONALS: std::ops::Range<usize> = 10..12;
    const DO: u8 = 0x80;
    let size = DATAGRAM.to_be_bytes();
    let dnssec = if asked.flags().dnssec_ok { DO } else { 0 };
    let version = 0;
    bytes.extend([0, 0, 41, size[0], size[1], code.high(), version, dnssec, 0, 0, 0]);
    let count = u16::from_be_bytes([bytes[10], bytes[11]]).saturating_add(1);
    bytes[ADDITIONALS].copy_from_slice(&count.to_be_bytes());
}
