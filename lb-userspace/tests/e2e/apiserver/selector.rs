//! Which objects of a collection are meant: `labelSelector` and `fieldSelector`.
//!
//! The grammar of labels is that of apimachinery/pkg/labels: `a`, `!a`, `a=b`, `a==b`, `a!=b`,
//! `a in (b,c)`, `a notin (b,c)`, joined by commas.

use std::collections::BTreeMap;

use serde_json::Value;

use super::resource::{Resource, Target};
use super::status::Status;

/// One condition. A key that an object lacks differs from every value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// A part of a collection.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    namespace: Option<String>,
    labels: Vec<Condition>,
    fields: Vec<Condition>,
}

impl Selector {
    /// What a request of a collection asks for.
    pub(super) fn of(
        target: &Target,
        query: &BTreeMap<String, String>,
    ) -> Result<Self, Box<Status>> {
        let text = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
        let unclear = |text: &str| {
            let message = format!("unable to parse requirement: {text:?}");
            Status::bad_request(&message)
        };
        let labels = parse(text("labelSelector")).ok_or_else(|| unclear(text("labelSelector")))?;
        let fields = parse(text("fieldSelector")).ok_or_else(|| unclear(text("fieldSelector")))?;
        for field in &fields {
            let key = match field {
                Condition::In(key, _) | Condition::NotIn(key, _) => key,
                Condition::Exists(_) | Condition::Absent(_) => {
                    return Err(unclear(text("fieldSelector")));
                }
            };
            if path(target.resource, key).is_none() {
                return Err(Status::bad_request(&format!("field label not supported: {key}")));
            }
        }
        Ok(Self { namespace: target.namespace.clone(), labels, fields })
    }

    /// Whether every object of the namespaces is meant: only then the server knows how many remain.
    pub(super) const fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, resource: Resource, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let label = |key: &str| metadata["labels"][key].as_str();
        let field = |key: &str| object.pointer(path(resource, key)?)?.as_str();
        let here = self.namespace.as_deref().is_none_or(|name| metadata["namespace"] == name);
        here && self.labels.iter().all(|condition| holds(condition, label))
            && self.fields.iter().all(|condition| holds(condition, field))
    }
}

/// Where a field is that may be selected by.
fn path(resource: Resource, field: &str) -> Option<&'static str> {
    match (field, resource) {
        ("metadata.name", _) => Some("/metadata/name"),
        ("metadata.namespace", _) => Some("/metadata/namespace"),
        ("spec.nodeName", Resource::Pods) => Some("/spec/nodeName"),
        ("status.phase", Resource::Pods) => Some("/status/phase"),
        _ => None,
    }
}

fn holds<'object>(condition: &Condition, value: impl Fn(&str) -> Option<&'object str>) -> bool {
    let is_in =
        |key: &str, all: &[String]| value(key).is_some_and(|it| all.iter().any(|v| v == it));
    match condition {
        Condition::Exists(key) => value(key).is_some(),
        Condition::Absent(key) => value(key).is_none(),
        Condition::In(key, all) => is_in(key, all),
        Condition::NotIn(key, all) => !is_in(key, all),
    }
}

fn parse(text: &str) -> Option<Vec<Condition>> {
    split(text).into_iter().map(condition).collect()
}

/// At the commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_comma = move |letter: char| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    };
    text.split(at_comma).map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn condition(text: &str) -> Option<Condition> {
    if let Some((key, rest)) = text.split_once(char::is_whitespace)
        && let Some((word, values)) = rest.trim().split_once('(')
    {
        let values = values.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned());
        return match word.trim() {
            "in" => Some(Condition::In(key.to_owned(), values.collect())),
            "notin" => Some(Condition::NotIn(key.to_owned(), values.collect())),
            _ => None,
        };
    }
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Condition::NotIn(key.trim().to_owned(), one(value)));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Condition::In(key.trim().to_owned(), one(value)));
    }
    match text.strip_prefix('!') {
        Some(key) => Some(Condition::Absent(key.trim().to_owned())),
        None => Some(Condition::Exists(text.to_owned())),
    }
}
