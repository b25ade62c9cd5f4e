//! The syntax of names, labels, ports and addresses: each function gives the rules that a value
//! breaks, in the words of apimachinery's `util/validation`.

use std::net::IpAddr;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with a value; empty if nothing is.
pub(super) type Rules = Vec<String>;

/// RFC 1123 label: `IsDNS1123Label`.
pub(crate) fn dns_label(value: &str) -> Rules {
    broken(value, 63, is_label(value), LABEL)
}

/// RFC 1035 label, which starts with a letter: `IsDNS1035Label`.
pub(super) fn dns_1035_label(value: &str) -> Rules {
    let starts = value.starts_with(|c: char| c.is_ascii_lowercase());
    broken(value, 63, starts && is_label(value), LABEL_1035)
}

/// RFC 1123 subdomain: `IsDNS1123Subdomain`.
pub(super) fn dns_subdomain(value: &str) -> Rules {
    broken(value, 253, value.split('.').all(is_label), SUBDOMAIN)
}

/// A domain name with at least two labels: `IsFullyQualifiedDomainName`.
pub(super) fn fully_qualified(value: &str) -> Rules {
    let name = value.strip_suffix('.').unwrap_or(value);
    if name.contains('.') {
        dns_subdomain(name)
    } else {
        vec!["should be a domain with at least two segments separated by dots".to_owned()]
    }
}

/// The key of a label or annotation: `IsQualifiedName`.
pub(super) fn qualified_name(value: &str) -> Rules {
    let (prefix, name) = match value.split_once('/') {
        None => (None, value),
        Some((prefix, name)) if !name.contains('/') => (Some(prefix), name),
        Some(_) => {
            return vec![format!(
                "a qualified name {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut rules = Rules::new();
    match prefix {
        None => {}
        Some("") => rules.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            rules.extend(dns_subdomain(prefix).iter().map(|rule| format!("prefix part {rule}")));
        }
    }
    if name.is_empty() {
        rules.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        rules.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name(name) {
        rules.push(format!("name part {QUALIFIED_NAME}"));
    }
    rules
}

/// `IsValidLabelValue`.
pub(super) fn label_value(value: &str) -> Rules {
    broken(value, 63, value.is_empty() || is_name(value), LABEL_VALUE)
}

/// `IsValidPortNum`.
pub(super) fn port_number(value: i32) -> Rules {
    if (1..=65535).contains(&value) {
        Rules::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// The name of a container's port, an IANA_SVC_NAME (RFC 6335, section 5.1): `IsValidPortName`.
pub(super) fn port_name(value: &str) -> Rules {
    let all = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let checks = [
        (value.len() <= 15, "must be no more than 15 characters"),
        (
            !value.is_empty() && value.chars().all(all),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            value.contains(|c: char| c.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (!value.contains("--"), "must not contain consecutive hyphens"),
        (!value.starts_with('-') && !value.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    checks.into_iter().filter(|(ok, _)| !ok).map(|(_, rule)| rule.to_owned()).collect()
}

/// An address: `IsValidIP`. IPv4-mapped IPv6 addresses and leading zeros are refused since
/// Kubernetes 1.36 (`StrictIPCIDRValidation`), as tools disagree on what they mean.
pub(super) fn ip(value: &str) -> Result<IpAddr, String> {
    let address: IpAddr = value
        .parse()
        .map_err(|_| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err("must not be an IPv4-mapped IPv6 address".to_owned())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(address),
    }
}

/// Addresses that cannot be an endpoint's or an external one: `ValidateEndpointIP`.
pub(in crate::store) fn special_ip(address: IpAddr) -> Option<&'static str> {
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

fn broken(value: &str, most: usize, matches: bool, rule: &str) -> Rules {
    let mut rules = Rules::new();
    if value.len() > most {
        rules.push(format!("must be no more than {most} bytes"));
    }
    if !matches {
        rules.push(rule.to_owned());
    }
    rules
}

fn is_label(value: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = value.as_bytes();
    bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|byte| edge(byte) || *byte == b'-')
}

fn is_name(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
