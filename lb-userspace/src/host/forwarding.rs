//! Whether the kernel forwards packets: what comes from elsewhere for an endpoint that is not this node itself goes nowhere
//! else.

use std::fs;

use super::check::{Finding, Level, finding, ok};

/// Of each family: the setting, and its file below `/proc/sys`.
const SETTINGS: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
    ("net.ipv6.conf.all.forwarding", "net/ipv6/conf/all/forwarding"),
];

const SUBJECT: &str = "forwarding";

/// What is lost by each family that is not forwarded. One that the kernel does not have loses nothing.
pub fn not_forwarding() -> Vec<String> {
    limits(|file| fs::read_to_string(format!("/proc/sys/{file}")).ok())
}

/// `lb check` about it.
pub(super) fn forwarding() -> Finding {
    let limits = not_forwarding();
    if limits.is_empty() {
        return ok(SUBJECT, "on");
    }
    finding(SUBJECT, Level::Warn, "off", &limits.join("; "))
}

fn limits(read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let off = SETTINGS.iter().filter(|(_, file)| read(file).is_some_and(|word| word.trim() == "0"));
    let limit = |(name, _): &(&str, &str)| {
        format!(
            "{name} is 0: clients elsewhere do not reach endpoints other than this node itself; \
             `sysctl -w {name}=1`"
        )
    };
    off.map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_that_is_not_forwarded_is_named_with_the_remedy() {
        let with = |v4: Option<&'static str>, v6: Option<&'static str>| {
            limits(|file| if file.contains("ipv4") { v4 } else { v6 }.map(str::to_owned))
        };
        assert!(with(Some("1\n"), Some("1\n")).is_empty());
        assert!(with(Some("1\n"), None).is_empty(), "a kernel without IPv6");
        assert!(with(Some("1\n"), Some("2\n")).is_empty());
        let [v4] = &with(Some("0\n"), None)[..] else { panic!("one limit") };
        assert!(v4.contains("sysctl -w net.ipv4.ip_forward=1"), "{v4}");
        let [_, v6] = &with(Some("0\n"), Some("0\n"))[..] else { panic!("two limits") };
        assert!(v6.contains("sysctl -w net.ipv6.conf.all.forwarding=1"), "{v6}");
    }
}
