//! `--device`: names of devices, or patterns as a shell's.

use std::str::FromStr;

/// The kernel's names are shorter (`IFNAMSIZ`, include/uapi/linux/if.h).
const LONGEST_NAME: usize = 15;

/// A device's name in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let named = word.bytes().filter(|&byte| byte != b'*').count();
        if word.is_empty() {
            return Err("no name; `--no-packet-path` is how to choose no device".to_owned());
        }
        if named > LONGEST_NAME {
            return Err(format!("no device's name is longer than {LONGEST_NAME} bytes"));
        }
        if word.contains(['/', ' ', '[', ']']) {
            return Err(
                "not a device's name; in a pattern, * stands for any characters and ? for \
                        one"
                .to_owned(),
            );
        }
        Ok(Self(word.to_owned()))
    }
}

impl Pattern {
    /// Whether the whole name is as the pattern says.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// A `*` that has taken too little takes one more: only the last one need, as whatever comes after it
/// is found at the earliest place.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut taken) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while taken < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, taken));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[taken] => {
                at += 1;
                taken += 1;
            }
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (at, taken) = (after + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_only() {
        for (pattern, yes, no) in [
            ("eth0", &["eth0"][..], &["eth", "eth00", "xeth0", "Eth0"][..]),
            ("eth*", &["eth", "eth0", "eth0.7"], &["et", "xeth0"]),
            ("*", &["eth0", "x"], &[]),
            ("?", &["x"], &["", "xy"]),
            ("eth?", &["eth0"], &["eth", "eth10"]),
            ("*.7", &["eth0.7", ".7"], &["eth0.77", "eth0.8"]),
            ("e*0*7", &["e07", "eth0.7", "e0077"], &["e7", "eth0.8", "e70"]),
            ("**a**", &["a", "bab"], &["b"]),
            ("a*b?", &["abc", "axxbc", "abbc"], &["ab", "a"]),
        ] {
            let parsed: Pattern = pattern.parse().expect(pattern);
            for name in yes {
                assert!(parsed.matches(name), "{pattern} matches {name}");
            }
            for name in no {
                assert!(!parsed.matches(name), "{pattern} does not match {name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_the_remedy() {
        for (word, remedy) in [
            ("", "--no-packet-path"),
            ("a-name-of-sixteen", "15 bytes"),
            ("eth0 eth1", "* stands for"),
            ("eth[01]", "* stands for"),
        ] {
            let error = word.parse::<Pattern>().expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }
}
