//! Answers that are no objects: `Status`, as apimachinery/pkg/api/errors makes them.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::resource::Resource;

/// A `Status` of failure.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// A token to go on with, inconsistently, after one that has expired.
    pub(super) next: Option<String>,
    pub(super) retry_after: Option<u32>,
}

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: &str) -> Box<Self> {
        let message = message.to_owned();
        Box::new(Self { code, reason, message, details: None, next: None, retry_after: None })
    }

    fn with_details(mut self: Box<Self>, details: Value) -> Box<Self> {
        self.details = Some(details);
        self
    }

    pub(super) fn unauthorized() -> Box<Self> {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// As RBAC refuses what no role allows.
    pub(super) fn forbidden(resource: Resource, verb: &str) -> Box<Self> {
        let (plural, group) = (resource.plural(), resource.group());
        let message = format!(
            "{} is forbidden: User \"system:serviceaccount:kube-system:lb\" cannot {verb} resource \
             \"{plural}\" in API group \"{group}\" at the cluster scope",
            resource.qualified()
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", &message)
            .with_details(json!({"group": group, "kind": plural}))
    }

    pub(super) fn bad_request(message: &str) -> Box<Self> {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// A resource that the server does not have, of a group that it may have.
    pub(super) fn no_such_resource() -> Box<Self> {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with_details(json!({}))
    }

    pub(super) fn not_found(resource: Resource, name: &str) -> Box<Self> {
        let message = format!("{} {name:?} not found", resource.qualified());
        let details = json!({"name": name, "group": resource.group(), "kind": resource.plural()});
        Self::new(StatusCode::NOT_FOUND, "NotFound", &message).with_details(details)
    }

    pub(super) fn already_exists(resource: Resource, name: &str) -> Box<Self> {
        let message = format!("{} {name:?} already exists", resource.qualified());
        let details = json!({"name": name, "group": resource.group(), "kind": resource.plural()});
        Self::new(StatusCode::CONFLICT, "AlreadyExists", &message).with_details(details)
    }

    /// Fields that are not as they must be, each with what is wrong.
    pub(super) fn invalid(
        group: &str,
        kind: &str,
        name: &str,
        wrong: &[(&str, &str)],
    ) -> Box<Self> {
        let all: Vec<_> = wrong.iter().map(|(field, what)| format!("{field}: {what}")).collect();
        let text = match &all[..] {
            [one] => one.clone(),
            _ => format!("[{}]", all.join(", ")),
        };
        let cause = |(field, what): &(&str, &str)| {
            let reason = match what.split(':').next() {
                Some("Forbidden") => "FieldValueForbidden",
                Some("Required value") => "FieldValueRequired",
                _ => "FieldValueInvalid",
            };
            json!({"reason": reason, "message": what, "field": field})
        };
        let causes: Vec<_> = wrong.iter().map(cause).collect();
        let message = format!("{kind}.{group} {name:?} is invalid: {text}");
        let details = json!({"name": name, "group": group, "kind": kind, "causes": causes});
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message).with_details(details)
    }

    /// A version whose changes are forgotten.
    pub(super) fn expired(message: &str) -> Box<Self> {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A version that is not there yet.
    pub(super) fn too_large(asked: u64, current: u64) -> Box<Self> {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let message = message.as_str();
        let cause = json!({"reason": "ResourceVersionTooLarge",
            "message": "Too large resource version"});
        let mut status = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            .with_details(json!({"causes": [cause], "retryAfterSeconds": 1}));
        status.retry_after = Some(1);
        status
    }

    pub(super) fn too_many(seconds: u32) -> Box<Self> {
        let message = "Too many requests, please try again later.";
        let mut status = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
            .with_details(json!({"retryAfterSeconds": seconds}));
        status.retry_after = Some(seconds);
        status
    }

    pub(super) fn internal() -> Box<Self> {
        let message = "Internal error occurred: etcdserver: leader changed";
        let details = json!({"causes": [{"message": "etcdserver: leader changed"}]});
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).with_details(details)
    }

    pub(super) fn unavailable() -> Box<Self> {
        let message = "apiserver not ready";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.next {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}
