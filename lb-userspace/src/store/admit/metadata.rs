//! `metadata` of every kind: what the server fills in, and apimachinery's `ValidateObjectMeta`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use uuid::Uuid;

use super::cause::Causes;
use super::syntax;
use crate::object::{Kind, Object};

/// Kubernetes' limit for all annotations together (`TotalAnnotationSizeLimitB`).
const ANNOTATION_BYTES: usize = 256 * 1024;

/// Sets what belongs to the server, whatever the manifest says: identity and age are those of the
/// stored object, and an exported manifest's bookkeeping of another cluster is dropped.
pub(super) fn prepare(object: &mut Object, old: Option<&ObjectMeta>) {
    let namespace = object.key().namespace;
    let metadata = object.metadata_mut();
    if !namespace.is_empty() {
        metadata.namespace = Some(namespace.to_string());
    }
    metadata.resource_version = None;
    metadata.generation = None;
    metadata.self_link = None;
    metadata.managed_fields = None;
    metadata.uid = old.and_then(|old| old.uid.clone()).or_else(|| Some(Uuid::new_v4().to_string()));
    metadata.creation_timestamp =
        old.and_then(|old| old.creation_timestamp.clone()).or_else(|| Some(now()));
}

/// Kubernetes' times have whole seconds.
fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// `ValidateObjectMeta` with the name rule of the kind.
pub(super) fn validate(kind: Kind, metadata: &ObjectMeta, causes: &mut Causes) {
    let name = metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        causes.required("metadata.name", "name or generateName is required");
    } else {
        let rules = match kind {
            Kind::Service => syntax::dns_1035_label(name),
            Kind::Pod | Kind::EndpointSlice | Kind::Endpoints | Kind::Node => {
                syntax::dns_subdomain(name)
            }
        };
        causes.each("metadata.name", name, rules);
    }
    match metadata.namespace.as_deref() {
        Some(namespace) if kind.namespaced() => {
            causes.each("metadata.namespace", namespace, syntax::dns_label(namespace));
        }
        Some(namespace) if !namespace.is_empty() => {
            causes.forbidden("metadata.namespace", "not allowed on this type");
        }
        Some(_) | None => {}
    }
    labels("metadata.labels", metadata.labels.as_ref(), causes);
    annotations(metadata.annotations.as_ref(), causes);
}

/// `ValidateLabels`, also for a Service's selector.
pub(super) fn labels(field: &str, labels: Option<&BTreeMap<String, String>>, causes: &mut Causes) {
    for (key, value) in labels.into_iter().flatten() {
        causes.each(field, key, syntax::qualified_name(key));
        causes.each(&format!("{field}[{key}]"), value, syntax::label_value(value));
    }
}

/// `ValidateAnnotations`: a key may have upper case letters in its prefix.
fn annotations(annotations: Option<&BTreeMap<String, String>>, causes: &mut Causes) {
    const FIELD: &str = "metadata.annotations";
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        causes.each(FIELD, key, syntax::qualified_name(&key.to_ascii_lowercase()));
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATION_BYTES {
        causes.too_long(FIELD, ANNOTATION_BYTES);
    }
}
