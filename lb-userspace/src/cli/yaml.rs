//! Objects as YAML in kubectl's layout: block style, lists not indented, quotes only where needed.
//!
//! serde-saphyr would quote every IPv4 address, lest a strict reading of YAML 1.1 takes it for a number;
//! kubectl does not, and what scripts look for is `clusterIP: 10.96.0.10`.

use std::fmt::{self, Write};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::Value;

/// Writes one document, ending with a newline.
pub(super) fn write(out: &mut impl Write, value: &Value) -> fmt::Result {
    match value {
        Value::Object(map) if !map.is_empty() => object(out, value, 0, true),
        Value::Array(items) if !items.is_empty() => array(out, items, 0),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            scalar(out, value, 0)?;
            writeln!(out)
        }
    }
}

/// The entries of a map. `begun`: whether the first of them begins its line, so that it is indented.
fn object(out: &mut impl Write, value: &Value, indent: usize, begun: bool) -> fmt::Result {
    for (n, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        if n > 0 || begun {
            write!(out, "{:indent$}", "")?;
        }
        string(out, key)?;
        write!(out, ":")?;
        match value {
            Value::Object(map) if !map.is_empty() => {
                writeln!(out)?;
                object(out, value, indent + 2, true)?;
            }
            Value::Array(items) if !items.is_empty() => {
                writeln!(out)?;
                array(out, items, indent)?;
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                write!(out, " ")?;
                scalar(out, value, indent + 2)?;
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

fn array(out: &mut impl Write, items: &[Value], indent: usize) -> fmt::Result {
    for item in items {
        write!(out, "{:indent$}- ", "")?;
        match item {
            Value::Object(map) if !map.is_empty() => object(out, item, indent + 2, false)?,
            Value::Array(inner) if !inner.is_empty() => {
                writeln!(out)?;
                array(out, inner, indent + 2)?;
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                scalar(out, item, indent + 2)?;
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// What stands behind a key or a dash. Empty maps and lists print as in JSON.
fn scalar(out: &mut impl Write, value: &Value, indent: usize) -> fmt::Result {
    match value {
        Value::String(text) if is_block(text) => block(out, text, indent),
        Value::String(text) => string(out, text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            write!(out, "{value}")
        }
    }
}

fn string(out: &mut impl Write, text: &str) -> fmt::Result {
    if is_plain(text) {
        out.write_str(text)
    } else {
        // Every JSON string is a YAML one.
        write!(out, "{}", Value::from(text))
    }
}

/// Several lines that a literal block shows as they are.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{feff}')
        && !text.trim_end_matches('\n').is_empty()
}

fn block(out: &mut impl Write, text: &str, indent: usize) -> fmt::Result {
    let body = text.strip_suffix('\n');
    let keep = body.is_some_and(|body| body.ends_with('\n'));
    out.write_str(match body {
        None => "|-",
        Some(_) if keep => "|+",
        Some(_) => "|",
    })?;
    for line in body.unwrap_or(text).split('\n') {
        writeln!(out)?;
        if !line.is_empty() {
            write!(out, "{:indent$}{line}", "")?;
        }
    }
    Ok(())
}

/// Whether a string reads as itself without quotes, by the rules of YAML 1.1 and 1.2.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let shape = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || " _-./:@+,=()<>*$;^%#!?~|&".contains(c))
        && (first.is_ascii_alphanumeric() || matches!(first, '/' | '_' | '$' | '^' | '(' | ';'))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #");
    shape && !is_word(text) && !(first.is_ascii_digit() && is_number_like(text))
}

/// Words that mean a boolean or nothing.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 11] =
        ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Numbers, times, and what might be one; addresses, ranges and names are none.
fn is_number_like(text: &str) -> bool {
    let address = text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv4Net>().is_ok();
    let name = text.bytes().any(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !is_hexadecimal_or_exponent(text);
    !address && !name
}

/// `0x1f`, `1e3`, `0o17`, `0b1`, and the `T` and `Z` of times.
fn is_hexadecimal_or_exponent(text: &str) -> bool {
    let letters = text.bytes().filter(u8::is_ascii_alphabetic).count();
    let radix = text.as_bytes().get(..2).is_some_and(|start| b"xXoObB".contains(&start[1]));
    radix || (letters <= 2 && text.bytes().any(|b| b"eEtTzZ".contains(&b)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn yaml(value: &Value) -> String {
        let mut text = String::new();
        write(&mut text, value).expect("a string takes all");
        text
    }

    #[test]
    fn a_service_looks_as_from_kubectl() {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "annotations": {"on": "yes", "script": "a: b\n  c\n"},
                "creationTimestamp": "2026-11-22T21:28:12Z",
                "labels": {"version": "1.0", "sha": "1e3"},
                "name": "0-mysql",
            },
            "spec": {
                "clusterIP": "10.106.66.181",
                "clusterIPs": ["10.106.66.181", "fd00::1"],
                "ports": [{"port": 3306, "targetPort": "sql"}],
            },
            "status": {"loadBalancer": {}, "list": []},
        });
        assert_eq!(
            yaml(&value),
            r#"apiVersion: v1
kind: Service
metadata:
  annotations:
    "on": "yes"
    script: |
      a: b
        c
  creationTimestamp: "2026-11-22T21:28:12Z"
  labels:
    sha: "1e3"
    version: "1.0"
  name: 0-mysql
spec:
  clusterIP: 10.106.66.181
  clusterIPs:
  - 10.106.66.181
  - fd00::1
  ports:
  - port: 3306
    targetPort: sql
status:
  list: []
  loadBalancer: {}
"#
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "[0-9a-fxoTZe:.+_-]{1,10}",
            "[a-c \n:#-]{0,12}",
            "(y|No|TRUE|~|null|\\.inf|0x1F|1_000|12:30:45|2001-01-01|<<|=|---)",
            any::<String>().prop_filter("YAML cannot hold them", |text| {
                !text
                    .chars()
                    .any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{feff}'))
            }),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_back(value in any_value()) {
            let text = yaml(&value);
            let back: Value = serde_saphyr::from_str(&text)
                .map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
