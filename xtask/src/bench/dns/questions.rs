//! The questions that are asked, the records that answer them, and what a right answer is.
//!
//! Numbers in messages are in network order (RFC 1035, section 4).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};

const ZONE: &str = "cluster.local";
/// How long an answer may be kept, in seconds: lb's default.
const TTL: u32 = 5;
/// Bytes before the question.
const HEADER: usize = 12;
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;
const CLASS_IN: u16 = 1;

/// The Services of the benchmark, all in namespace `default`, with one named port each.
pub(super) struct Services {
    count: u16,
}

impl Services {
    /// As many Services, at most 50,000.
    pub(super) fn new(count: u16) -> Self {
        Self { count }
    }

    /// Their manifests, with ClusterIPs of their own.
    pub(super) fn manifests(&self) -> String {
        let mut text = String::new();
        for (name, address) in self.iter() {
            let _ = writeln!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
                 spec: {{clusterIP: {address}, ports: [{{name: http, port: 80}}]}}"
            );
        }
        text
    }

    /// The same records as unbound's configuration.
    pub(super) fn unbound_zones(&self) -> String {
        let soa = |zone: &str| {
            format!(
                "  local-zone: \"{zone}.\" static\n\
                 \x20 local-data: \"{zone}. {TTL} IN SOA ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 {TTL}\"\n"
            )
        };
        let mut text = soa(ZONE) + &soa("10.in-addr.arpa");
        for (name, address) in self.iter() {
            let full = full_name(&name);
            let reverse = reverse_name(address);
            let _ = write!(
                text,
                "  local-data: \"{full}. {TTL} IN A {address}\"\n\
                 \x20 local-data: \"_http._tcp.{full}. {TTL} IN SRV 0 100 80 {full}.\"\n\
                 \x20 local-data: \"{reverse}. {TTL} IN PTR {full}.\"\n"
            );
        }
        text
    }

    /// One question for the address of each Service.
    pub(super) fn addresses(&self) -> String {
        self.iter().fold(String::new(), |text, (name, address)| {
            text + &format!("{} A {address}\n", full_name(&name))
        })
    }

    /// Of seven questions four for addresses, one each for a port, the name of an address, and a
    /// name that does not exist, as search lists produce.
    pub(super) fn mix(&self) -> String {
        let mut text = String::new();
        for (name, address) in self.iter() {
            let full = full_name(&name);
            let reverse = reverse_name(address);
            text += &format!("{full} A {address}\n").repeat(4);
            let _ = write!(
                text,
                "_http._tcp.{full} SRV\n{reverse} PTR\n{full}.default.svc.{ZONE} NXDOMAIN\n"
            );
        }
        text
    }

    fn iter(&self) -> impl Iterator<Item = (String, Ipv4Addr)> {
        let first = u32::from(Ipv4Addr::new(10, 97, 0, 1));
        (0..self.count)
            .map(move |i| (format!("svc-{i}"), Ipv4Addr::from_bits(first + u32::from(i))))
    }
}

fn full_name(service: &str) -> String {
    format!("{service}.default.svc.{ZONE}")
}

fn reverse_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// A question, as it goes over the wire, and what a right answer must hold.
pub(super) struct Question {
    /// The name that is asked for, in words.
    pub(super) name: String,
    /// The message; the first two bytes are the id, which the sender sets.
    pub(super) message: Vec<u8>,
    kind: u16,
    expected: Expected,
}

enum Expected {
    Address(Ipv4Addr),
    /// Some record of the type that was asked for.
    Record,
    NoSuchName,
}

impl Question {
    /// Reads a line such as `svc-0.default.svc.cluster.local A 10.97.0.1`.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let name = words.next().with_context(|| format!("no name in question {line:?}"))?;
        let (kind, expected) = match (words.next(), words.next()) {
            (Some("A"), Some(address)) => {
                let address = address.parse().with_context(|| format!("no address in {line:?}"))?;
                (1, Expected::Address(address))
            }
            (Some("PTR"), None) => (12, Expected::Record),
            (Some("SRV"), None) => (33, Expected::Record),
            (Some("NXDOMAIN"), None) => (1, Expected::NoSuchName),
            _ => bail!("question {line:?} is none of A with an address, PTR, SRV, NXDOMAIN"),
        };
        Ok(Self { name: name.to_owned(), message: encode(name, kind)?, kind, expected })
    }

    /// Says what is wrong with an answer, if anything is. The id is not looked at.
    pub(super) fn fault(&self, answer: &[u8]) -> Option<&'static str> {
        let (Some(header), Some(rest)) = (answer.get(..HEADER), answer.get(HEADER..)) else {
            return Some("is shorter than a header");
        };
        if header[2] & 0x80 == 0 {
            return Some("is no response");
        }
        let Some(rest) = rest.strip_prefix(&self.message[HEADER..]) else {
            return Some("does not repeat the question");
        };
        let code = header[3] & 0x0f;
        match self.expected {
            Expected::NoSuchName if code == NXDOMAIN => None,
            Expected::NoSuchName => Some("is not NXDOMAIN"),
            Expected::Address(_) | Expected::Record if code != NOERROR => Some("is not NOERROR"),
            Expected::Address(_) | Expected::Record if header[6..8] == [0, 0] => {
                Some("holds no record")
            }
            Expected::Address(address) => match first_record(rest) {
                Some((kind, data)) if kind == self.kind && data == address.octets() => None,
                Some(_) | None => Some("holds another address"),
            },
            Expected::Record => match first_record(rest) {
                Some((kind, data)) if kind == self.kind && !data.is_empty() => None,
                Some(_) | None => Some("holds a record of another type"),
            },
        }
    }
}

/// A query with recursion desired, as stub resolvers send it.
fn encode(name: &str, kind: u16) -> Result<Vec<u8>> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        ensure!((1..64).contains(&label.len()), "{name:?} has a label of {} bytes", label.len());
        message.push(u8::try_from(label.len())?);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Ok(message)
}

/// Type and data of the record that bytes begin with.
fn first_record(mut bytes: &[u8]) -> Option<(u16, &[u8])> {
    // The owner: labels, up to the root or a pointer (RFC 1035, section 4.1.4).
    loop {
        let (&length, _) = bytes.split_first()?;
        let (skipped, is_last) = match length {
            0 => (1, true),
            pointer if pointer & 0xc0 == 0xc0 => (2, true),
            label => (usize::from(label) + 1, false),
        };
        bytes = bytes.get(skipped..)?;
        if is_last {
            break;
        }
    }
    let (fixed, data) = bytes.split_first_chunk::<10>()?;
    let [kind_high, kind_low, .., length_high, length_low] = *fixed;
    let length = u16::from_be_bytes([length_high, length_low]);
    Some((u16::from_be_bytes([kind_high, kind_low]), data.get(..usize::from(length))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: &Question, code: u8, owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let mut answer = question.message.clone();
        (answer[2], answer[3], answer[7]) = (0x85, code, u8::from(!data.is_empty()));
        answer.extend(owner);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 5, 0]);
        answer.push(u8::try_from(data.len()).expect("short data"));
        answer.extend(data);
        answer
    }

    #[test]
    fn an_answer_is_right_only_with_the_address_that_was_expected() {
        let question = Question::parse("svc-1.default.svc.cluster.local A 10.97.0.2")
            .expect("the question is well-formed");
        let pointer = [0xc0, 12];
        let spelled = b"\x05svc-1\x07default\x03svc\x07cluster\x05local\0";
        assert_eq!(question.fault(&answer(&question, 0, &pointer, 1, &[10, 97, 0, 2])), None);
        assert_eq!(question.fault(&answer(&question, 0, spelled, 1, &[10, 97, 0, 2])), None);
        for (wrong, why) in [
            (answer(&question, 0, &pointer, 1, &[10, 97, 0, 3]), "holds another address"),
            (answer(&question, 0, &pointer, 28, &[10, 97, 0, 2]), "holds another address"),
            (answer(&question, 0, &pointer, 1, &[]), "holds no record"),
            (answer(&question, 2, &pointer, 1, &[10, 97, 0, 2]), "is not NOERROR"),
            (question.message.clone(), "is no response"),
            (vec![0; 4], "is shorter than a header"),
        ] {
            assert_eq!(question.fault(&wrong), Some(why), "{wrong:?}");
        }
        let mut other = answer(&question, 0, &pointer, 1, &[10, 97, 0, 2]);
        other[HEADER + 1] ^= 1;
        assert_eq!(question.fault(&other), Some("does not repeat the question"));
    }

    #[test]
    fn every_question_of_the_mix_is_well_formed_and_its_own_kind_of_answer_is_right() {
        let mix = Services::new(2).mix();
        let questions: Vec<Question> = mix
            .lines()
            .map(|line| Question::parse(line).unwrap_or_else(|error| panic!("{line}: {error}")))
            .collect();
        assert_eq!(questions.len(), 14);
        let [.., port, name, missing] = &questions[..7] else { panic!("seven questions") };
        assert_eq!(port.fault(&answer(port, 0, &[0xc0, 12], 33, b"target")), None);
        assert_eq!(name.fault(&answer(name, 0, &[0xc0, 12], 12, b"target")), None);
        assert_eq!(missing.fault(&answer(missing, 3, &[0], 1, &[])), None);
        assert_eq!(missing.fault(&answer(missing, 0, &[0], 1, &[])), Some("is not NXDOMAIN"));
    }
}
