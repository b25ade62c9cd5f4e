//! Sets of ports.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports without a gap, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// From `first` to `last`; `None` if that is none, or has port 0.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first > 0 && first <= last { Some(Self { first, last }) } else { None }
    }

    /// The lowest.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether a port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether they have a port in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let (first, last) = word.split_once('-').ok_or("not a range such as 49152-65535")?;
        let port = |word: &str| word.trim().parse().map_err(|_| "a port is 1 to 65535");
        Self::new(port(first)?, port(last)?)
            .ok_or("a range begins with its lower end, and not at 0")
    }
}

/// Ports in the form of the setting: `8080,49152-65535`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(BTreeSet<u16>);

impl Ports {
    /// All of a range.
    pub(super) fn of(range: Option<PortRange>) -> Self {
        Self(range.into_iter().flat_map(|range| range.first..=range.last).collect())
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and those.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(&self.0 | &other.0)
    }

    /// These but not those.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &port in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if port - *last == 1 => *last = port,
                Some(_) | None => ranges.push((port, port)),
            }
        }
        for (index, (first, last)) in ranges.into_iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |word: &str| word.parse::<u16>().map_err(|_| format!("{word:?} is no port"));
        let mut ports = BTreeSet::new();
        for word in text.trim().split(',').filter(|word| !word.is_empty()) {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            ports.extend(port(first)?..=port(last)?);
        }
        Ok(Self(ports))
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_and_show_as_the_kernel_writes_them() {
        for text in ["", "0", "8080", "8080,9148", "1-3,5,7-65535", "65534-65535"] {
            let ports: Ports = text.parse().expect("ports");
            assert_eq!(ports.to_string(), text);
        }
        let read: Ports = "5,3,4,4\n".parse().expect("ports");
        assert_eq!(read.to_string(), "3-5");
        assert!("5,x".parse::<Ports>().is_err());
    }

    fn range(word: &str) -> PortRange {
        word.parse().expect("a range")
    }

    #[test]
    fn a_range_has_two_ends_in_order() {
        assert_eq!(range("49152-65535").count(), 16_384);
        assert!(range("1-9").overlaps(range("9-10")) && !range("1-9").overlaps(range("10-11")));
        for word in ["", "5", "6-5", "0-5", "5-65536", "a-b", "-5"] {
            assert!(word.parse::<PortRange>().is_err(), "{word}");
        }
    }
}
