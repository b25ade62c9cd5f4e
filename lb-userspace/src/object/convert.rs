//! One JSON value ↔ one typed object. Errors name object and field; unknown fields are warnings,
//! as with `kubectl --validate=warn`.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::locate::{Segment, display};
use super::{Kind, Object};

/// Things worth saying that stop nothing.
pub type Warnings = Vec<String>;

/// Why a value is not an object that lb serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a mapping at all.
    #[error(
        "this document is {found}, not an object: expected a mapping with apiVersion, kind and metadata"
    )]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// `apiVersion` or `kind` is absent, empty or not a string.
    #[error("Object '{field}' is missing{at}: {remedy}")]
    Untyped {
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// Where in a List, or empty.
        at: String,
        /// What to write.
        remedy: String,
    },
    /// One of Kubernetes' own groups, with a kind that lb serves in another version.
    #[error(
        "no matches for kind \"{kind}\" in version \"{api_version}\": write apiVersion: {expected}"
    )]
    Version {
        /// Its `kind`.
        kind: String,
        /// Its `apiVersion`.
        api_version: String,
        /// The `apiVersion` that lb serves.
        expected: &'static str,
    },
    /// Well-formed, but a kind that lb does not serve.
    #[error("{kind} \"{name}\" ({api_version}) is not a kind that lb serves")]
    Unserved {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A field has a value of the wrong type.
    #[error("{object} cannot be decoded: {field}: {message}")]
    Field {
        /// `Service "mysql"`, or `Service` where it has no name.
        object: String,
        /// Path of the field: `spec.ports[0].port`.
        field: String,
        /// What is wrong with it, and the remedy.
        message: String,
    },
    /// No `metadata.name`.
    #[error("{kind}{at}: metadata.name: Required value: {remedy}")]
    Unnamed {
        /// Its kind.
        kind: &'static str,
        /// Where in a List, or empty.
        at: String,
        /// What to write.
        remedy: &'static str,
    },
}

impl DecodeError {
    /// A List whose `items`, at `path`, are something else.
    pub(super) fn items(path: &[Segment], items: &Value) -> Self {
        let message = format!("expected a sequence, found {}", type_of(items));
        Self::Field { object: "List".to_owned(), field: display(path), message }
    }
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a sequence",
        Value::Object(_) => "a mapping",
    }
}

impl Object {
    /// The object as JSON, with `apiVersion` and `kind`.
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::Service(object) => serde_json::to_value(object),
            Self::Pod(object) => serde_json::to_value(object),
            Self::EndpointSlice(object) => serde_json::to_value(object),
            Self::Endpoints(object) => serde_json::to_value(object),
            Self::Node(object) => serde_json::to_value(object),
        };
        value.expect("k8s-openapi objects have string keys and finite numbers only")
    }

    /// The object that `value` is, and warnings such as `unknown field "spec.prots"`.
    pub fn from_value(value: Value) -> Result<(Self, Warnings), DecodeError> {
        convert(value, &[]).map_err(|failure| failure.error)
    }
}

/// A [`DecodeError`] and the path of the offending field, so that a line can be found for it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: DecodeError,
    pub(super) path: Vec<Segment>,
}

/// As [`Object::from_value`], for a value that stands at `base` in its document (a List's item).
pub(super) fn convert(value: Value, base: &[Segment]) -> Result<(Object, Warnings), Failure> {
    let at_base = |error| Failure { error, path: base.to_vec() };
    let kind = kind_of(&value, base).map_err(at_base)?;
    let (object, warnings) = match kind {
        Kind::Service => typed(kind, value, base, Object::Service),
        Kind::Pod => typed(kind, value, base, Object::Pod),
        Kind::EndpointSlice => typed(kind, value, base, Object::EndpointSlice),
        Kind::Endpoints => typed(kind, value, base, Object::Endpoints),
        Kind::Node => typed(kind, value, base, Object::Node),
    }?;
    let metadata = object.metadata();
    if metadata.name.as_deref().unwrap_or_default().is_empty() {
        let remedy = if metadata.generate_name.is_some() {
            "lb does not generate names; write metadata.name instead of metadata.generateName"
        } else {
            "name or generateName is required; write metadata.name"
        };
        return Err(at_base(DecodeError::Unnamed { kind: kind.name(), at: at(base), remedy }));
    }
    Ok((object, warnings))
}

fn kind_of(value: &Value, base: &[Segment]) -> Result<Kind, DecodeError> {
    if !value.is_object() {
        return Err(DecodeError::NotAnObject { found: type_of(value) });
    }
    let text = |field: &str| {
        value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let untyped = |field, remedy: String| DecodeError::Untyped { field, at: at(base), remedy };
    let Some(kind) = text("kind") else {
        return Err(untyped("kind", "write what it is, such as kind: Service".to_owned()));
    };
    let served = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let Some(api_version) = text("apiVersion") else {
        let remedy = served.map_or_else(
            || format!("write the API version of {kind}"),
            |known| format!("write apiVersion: {}", known.api_version()),
        );
        return Err(untyped("apiVersion", remedy));
    };
    if let Some(kind) = Kind::of(&api_version, &kind) {
        return Ok(kind);
    }
    // Other projects have a `Service` too (Knative's): theirs is skipped, not corrected.
    let own_group = !api_version.contains('/') || api_version.starts_with("discovery.k8s.io/");
    if let Some(known) = served.filter(|_| own_group) {
        return Err(DecodeError::Version { kind, api_version, expected: known.api_version() });
    }
    Err(DecodeError::Unserved { api_version, kind, name: name_of(value).to_owned() })
}

/// Decodes to the type `T`, keeping the path of an error and of each unknown field.
fn typed<T: DeserializeOwned>(
    kind: Kind,
    value: Value,
    base: &[Segment],
    wrap: fn(Box<T>) -> Object,
) -> Result<(Object, Warnings), Failure> {
    let object = match name_of(&value) {
        "" => kind.name().to_owned(),
        name => format!("{} {name:?}", kind.name()),
    };
    let mut warnings = Warnings::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        let mut segments = base.to_vec();
        segments.extend(unknown_field(&path));
        warnings.push(format!("unknown field {:?}", display(&segments)));
    };
    let deserializer = serde_ignored::Deserializer::new(value, &mut note);
    match serde_path_to_error::deserialize(deserializer) {
        Ok(decoded) => Ok((wrap(Box::new(decoded)), warnings)),
        Err(error) => {
            let mut path = base.to_vec();
            path.extend(error.path().iter().filter_map(segment));
            let field = display(&path);
            let message = type_message(&error.into_inner().to_string());
            Err(Failure { error: DecodeError::Field { object, field, message }, path })
        }
    }
}

fn segment(segment: &serde_path_to_error::Segment) -> Option<Segment> {
    use serde_path_to_error::Segment as Theirs;
    match segment {
        Theirs::Seq { index } => Some(Segment::Index(*index)),
        Theirs::Map { key } => Some(Segment::Key(key.clone())),
        // Neither occurs in Kubernetes' types: enums there are strings.
        Theirs::Enum { .. } | Theirs::Unknown => None,
    }
}

fn unknown_field(path: &serde_ignored::Path<'_>) -> Vec<Segment> {
    use serde_ignored::Path;
    let (parent, own) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Segment::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Segment::Key(key.clone()))),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut segments = unknown_field(parent);
    segments.extend(own);
    segments
}

/// serde's `invalid type: integer `5`, expected a string` with the expectation first and a remedy.
fn type_message(message: &str) -> String {
    let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return message.to_owned();
    };
    let (expected, remedy) = match expected {
        "a string" if is_scalar(found) => ("string", ": write it in quotes"),
        "a string" => ("string", ""),
        "i32" | "a 32-bit integer" if found.starts_with("string ") => {
            ("a 32-bit integer", ": write the number without quotes")
        }
        "i32" => ("a 32-bit integer", ""),
        "IntOrString" => ("a number or a name", ""),
        other => (other, ""),
    };
    format!("expected {expected}, found {found}{remedy}")
}

fn is_scalar(found: &str) -> bool {
    ["integer", "floating point", "boolean"].iter().any(|scalar| found.starts_with(scalar))
}

pub(super) fn name_of(value: &Value) -> &str {
    value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// ` in items[2]`, or nothing for a document of its own.
fn at(base: &[Segment]) -> String {
    if base.is_empty() { String::new() } else { format!(" in {}", display(base)) }
}
