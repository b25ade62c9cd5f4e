//! Lists: whole, in pages, and as of a version.
//!
//! What the parameters mean: "Semantics for get and list" of the API concepts, and
//! apiserver/pkg/storage/etcd3/store.go.

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::resource::{Resource, Target};
use super::selector::Selector;
use super::status::Status;
use super::store::{Key, Store, after};

/// The last words of both messages about a token that has expired.
const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response to \
    retrieve the remainder of the results. Continuing with the provided token results in an inconsistent \
    list - objects that were created, modified, or deleted between the time the first chunk was returned and \
    now may show up in the list.";

/// From where a list goes on: behind an object, at a version, or, inconsistently, at the latest.
struct Place {
    version: Option<u64>,
    behind: Key,
}

impl Place {
    /// Clients must not look inside. This is base64 of JSON, as etcd3's is, of which a `+` or `/` must
    /// survive the way through a query.
    fn token(&self) -> String {
        let (namespace, name) = &self.behind;
        let text = json!({"v": "meta.k8s.io/v1", "rv": self.version, "start": [namespace, name]});
        let encoded = serde_json::to_value(ByteString(text.to_string().into_bytes()));
        encoded.ok().and_then(|it| it.as_str().map(str::to_owned)).expect("base64 is a text")
    }

    fn parse(token: &str) -> Option<Self> {
        let ByteString(bytes) = serde_json::from_value(json!(token)).ok()?;
        let text: Value = serde_json::from_slice(&bytes).ok()?;
        let behind: Key = serde_json::from_value(text["start"].clone()).ok()?;
        Some(Self { version: text["rv"].as_u64(), behind })
    }
}

/// What a list shows.
struct Page {
    /// Of the collection, and of what is shown of it.
    version: u64,
    behind: Option<Key>,
    limit: usize,
}

/// The list that a request asks for.
pub(super) fn answer(
    store: &Store,
    target: &Target,
    query: &BTreeMap<String, String>,
) -> Result<Bytes, Box<Status>> {
    let selector = Selector::of(target, query)?;
    let page = page(store, query)?;
    let resource = target.resource;
    let objects = store.at(resource, page.version).map_err(|_| {
        let mut status = Status::expired(match page.behind {
            Some(_) => TOO_OLD,
            None => "The resourceVersion for the provided list is too old.",
        });
        let place = |behind: &Key| Place { version: None, behind: behind.clone() };
        status.next = page.behind.as_ref().map(|behind| place(behind).token());
        status
    })?;
    let mut items = Vec::new();
    let mut rest = after(&objects, page.behind.as_ref()).peekable();
    let mut last = None;
    while items.len() < page.limit {
        let Some((key, object)) = rest.next() else { break };
        last = Some(key);
        if selector.matches(resource, &object.value) {
            items.push(&object.item);
        }
    }
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    // With a selector, too, although it may be that nothing selected follows.
    if rest.peek().is_some()
        && let Some(last) = last
    {
        let place = Place { version: Some(page.version), behind: last.clone() };
        metadata["continue"] = json!(place.token());
        if selector.is_everything() {
            metadata["remainingItemCount"] = json!(rest.count());
        }
    }
    Ok(document(resource, &metadata, &items))
}

fn page(store: &Store, query: &BTreeMap<String, String>) -> Result<Page, Box<Status>> {
    let text = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let (asked, matching) = (text("resourceVersion"), text("resourceVersionMatch"));
    check(query)?;
    let limit = match text("limit").parse() {
        // The watch cache, which answers for any version, does not know limits.
        Ok(limit @ 1..) if asked != "0" => limit,
        _ => usize::MAX,
    };
    let current = store.version;
    if !text("continue").is_empty() {
        if !matches!(asked, "" | "0") {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(message));
        }
        let place = Place::parse(text("continue"));
        let place = place.ok_or_else(|| Status::bad_request("continue key is not valid"))?;
        let (version, behind) = (place.version.unwrap_or(current), Some(place.behind));
        return Ok(Page { version, behind, limit });
    }
    let version = version(asked)?.unwrap_or(0);
    if version > current {
        return Err(Status::too_large(version, current));
    }
    // A limit without a rule means exactly this version, for compatibility.
    let exactly = matching == "Exact" || (matching.is_empty() && limit != usize::MAX);
    let version = if exactly && version != 0 { version } else { current };
    Ok(Page { version, behind: None, limit })
}

/// What apimachinery/pkg/apis/meta/internalversion/validation refuses of lists.
fn check(query: &BTreeMap<String, String>) -> Result<(), Box<Status>> {
    let text = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let mut wrong = Vec::new();
    if !text("resourceVersionMatch").is_empty() {
        if text("resourceVersion").is_empty() {
            wrong.push((
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !text("continue").is_empty() {
            wrong.push((
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if text("resourceVersionMatch") == "Exact" && text("resourceVersion") == "0" {
            wrong.push((
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if query.contains_key("sendInitialEvents") {
        wrong.push(("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list"));
    }
    match &wrong[..] {
        [] => Ok(()),
        wrong => Err(Status::invalid("meta.k8s.io", "ListOptions", "", wrong)),
    }
}

/// A version that a client sends back; `None` for none.
pub(super) fn version(text: &str) -> Result<Option<u64>, Box<Status>> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            let message = format!("invalid resource version: {text:?}");
            Status::bad_request(&message)
        }),
    }
}

fn document(resource: Resource, metadata: &Value, items: &[&Bytes]) -> Bytes {
    let (kind, api_version) = (resource.kind(), resource.api_version());
    let mut text = format!(
        r#"{{"kind":"{kind}List","apiVersion":"{api_version}","metadata":{metadata},"items":["#
    )
    .into_bytes();
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            text.push(b',');
        }
        text.extend_from_slice(item);
    }
    text.extend_from_slice(b"]}\n");
    text.into()
}
