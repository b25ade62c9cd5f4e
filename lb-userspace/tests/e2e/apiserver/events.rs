//! Events, the only objects that clients may create.

use serde_json::Value;

use super::resource::{Resource, Target};
use super::status::Status;

/// What is wrong with an Event: pkg/apis/core/validation/events.go, as of `events.k8s.io/v1`.
pub(super) fn check(target: &Target, event: &Value) -> Result<(), Box<Status>> {
    let kind = (event["kind"].as_str(), event["apiVersion"].as_str());
    if kind != (Some("Event"), Some(Resource::Events.api_version())) {
        let message = "the API version in the data does not match the expected API version";
        return Err(Status::bad_request(message));
    }
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let metadata = &event["metadata"];
    if metadata["namespace"].as_str().is_some_and(|its| its != namespace) {
        let message = "the namespace of the provided object does not match the namespace sent on the \
            request";
        return Err(Status::bad_request(message));
    }
    let name = metadata["name"].as_str().unwrap_or_default();
    let mut wrong = Vec::new();
    let texts = [
        ("metadata.name", metadata["name"].as_str(), 253),
        ("eventTime", event["eventTime"].as_str(), usize::MAX),
        ("reportingController", event["reportingController"].as_str(), usize::MAX),
        ("reportingInstance", event["reportingInstance"].as_str(), 128),
        ("action", event["action"].as_str(), 128),
        ("reason", event["reason"].as_str(), 128),
    ];
    for (field, text, longest) in texts {
        match text.map_or(0, str::len) {
            0 => wrong.push((field, "Required value")),
            length if length > longest => wrong.push((field, "Invalid value: too long")),
            _ => {}
        }
    }
    if event["note"].as_str().is_some_and(|note| note.len() > 1024) {
        wrong.push(("message", "Invalid value: can have at most 1024 characters"));
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        wrong.push(("type", "Invalid value: has invalid value"));
    }
    // What belongs to no namespace, as a Node, is reported in one of two.
    let about = event["regarding"]["namespace"].as_str().unwrap_or_default();
    let is_right = match about {
        "" => matches!(namespace, "default" | "kube-system"),
        _ => about == namespace,
    };
    if !is_right {
        wrong.push(("involvedObject.namespace", "Invalid value: does not match event.namespace"));
    }
    match &wrong[..] {
        [] => Ok(()),
        wrong => Err(Status::invalid("events.k8s.io", "Event", name, wrong)),
    }
}
