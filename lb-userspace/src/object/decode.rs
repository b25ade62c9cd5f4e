//! Manifests to objects: multi-document YAML or JSON, each document on its own.

use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use super::Object;
use super::convert::{DecodeError, Failure, convert};
use super::locate::{self, Places, Segment};
use super::split::{Chunk, split};

/// Where a document or an error stands. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// File name as the person gave it; `-` is standard input.
    pub file: String,
    /// Line in that file.
    pub line: usize,
    /// Column in that line; 0 where only the line is known.
    pub column: usize,
}

/// A manifest document that became an object.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it begins.
    pub position: Position,
    /// The object, with `namespace` left as written.
    pub object: Object,
    /// Things worth saying that stop nothing, such as unknown fields.
    pub warnings: Vec<String>,
}

/// A document that did not become an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not YAML, or not the shape of its kind. Message without position.
    #[error("{}:{}:{}: {message}", position.file, position.line, position.column)]
    Malformed {
        /// Where.
        position: Position,
        /// What, naming object and field where known, and the remedy.
        message: String,
    },
    /// Well-formed, but a kind that lb does not serve: named and skipped.
    #[error("{}:{}: {kind} \"{name}\" ({api_version}) is not a kind that lb serves; skipped",
        position.file, position.line)]
    Unserved {
        /// Where.
        position: Position,
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// One document's result.
pub type Decoded = Result<Document, Problem>;

/// Decodes every document of `bytes`; a bad one never hides its neighbours. Lists are flattened.
pub fn decode(bytes: &[u8], file: &str) -> Vec<Decoded> {
    let text = match as_text(bytes) {
        Ok(text) => text,
        Err((line, message)) => {
            let position = Position { file: file.to_owned(), line, column: 0 };
            return vec![Err(Problem::Malformed { position, message })];
        }
    };
    let mut results = Vec::new();
    for chunk in split(text) {
        DocumentReader { file, chunk: &chunk, items: None, places: None }.read(&mut results);
    }
    results
}

/// YAML as users of kubectl know it. The limits are per document: wide enough for one List of
/// 10 MB, narrow enough that aliases cannot make more out of a document than it holds.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // `yes` and `on` are strings, as in YAML 1.2; `true` and `false` are booleans.
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 16_000_000,
            max_nodes: 8_000_000,
            max_depth: 64,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
    }
}

fn as_text(bytes: &[u8]) -> Result<&str, (usize, String)> {
    const REMEDY: &str = "a manifest is YAML or JSON in UTF-8";
    let line_of = |offset: usize| bytes[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, format!("the file is UTF-16, not UTF-8: save it as UTF-8; {REMEDY}")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let byte = bytes.get(offset).copied().unwrap_or_default();
        let message = format!(
            "the file is not text: byte 0x{byte:02x} at offset {offset} is not UTF-8; {REMEDY}"
        );
        (line_of(offset), message)
    })?;
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        let message = format!("the file is not text: it has a NUL at offset {offset}; {REMEDY}");
        return Err((line_of(offset), message));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Reads one document of a file.
struct DocumentReader<'a> {
    file: &'a str,
    chunk: &'a Chunk<'a>,
    /// Where a List's items stand; filled when first needed.
    items: Option<Vec<Option<(usize, usize)>>>,
    /// Where every field stands; filled when first needed.
    places: Option<Places>,
}

impl DocumentReader<'_> {
    fn read(mut self, results: &mut Vec<Decoded>) {
        if let Some(values) = json_stream(&self.chunk.text) {
            for (value, start) in values {
                self.flatten(value, start, &mut Vec::new(), results);
            }
            return;
        }
        match serde_saphyr::from_str_with_options::<Value>(&self.chunk.text, options()) {
            Ok(value) => self.flatten(value, 0, &mut Vec::new(), results),
            Err(error) => results.push(Err(self.syntax_problem(&error))),
        }
    }

    /// A List's items one by one, anything else as it is. `path` is where `value` stands in the
    /// document, and `start` the offset of the document's own JSON value in the text.
    fn flatten(
        &mut self,
        value: Value,
        start: usize,
        path: &mut Vec<Segment>,
        results: &mut Vec<Decoded>,
    ) {
        let List { items, api_version, kind } = match shape(value) {
            Shape::List(list) => list,
            Shape::Broken(items) => {
                path.push(Segment::Key("items".to_owned()));
                let error = DecodeError::items(path, &items);
                results.push(Err(self.malformed(&error, start, path)));
                path.pop();
                return;
            }
            // A document that is `null` is an empty one.
            Shape::Single(Value::Null) if path.is_empty() => return,
            Shape::Single(value) => {
                results.push(self.object(value, start, path));
                return;
            }
        };
        for (index, mut item) in items.into_iter().enumerate() {
            // In the API's own lists (`ServiceList`) the items do not repeat their type.
            if let (Some(item), Some(kind)) = (item.as_object_mut(), &kind) {
                item.entry("kind").or_insert_with(|| kind.clone().into());
                item.entry("apiVersion").or_insert_with(|| api_version.clone().into());
            }
            path.extend([Segment::Key("items".to_owned()), Segment::Index(index)]);
            self.flatten(item, start, path, results);
            path.truncate(path.len() - 2);
        }
    }

    fn object(&mut self, value: Value, start: usize, path: &[Segment]) -> Decoded {
        match convert(value, path) {
            Ok((object, warnings)) => {
                let position = self.position(start, path);
                Ok(Document { position, object, warnings })
            }
            Err(Failure { error: DecodeError::Unserved { api_version, kind, name }, .. }) => {
                let position = self.position(start, path);
                Err(Problem::Unserved { position, api_version, kind, name })
            }
            Err(Failure { error, path }) => Err(self.malformed(&error, start, &path)),
        }
    }

    fn malformed(&mut self, error: &DecodeError, start: usize, path: &[Segment]) -> Problem {
        Problem::Malformed { position: self.position(start, path), message: error.to_string() }
    }

    /// Where `path` stands in the file. `start` is 0 but in a stream of JSON values.
    fn position(&mut self, start: usize, path: &[Segment]) -> Position {
        let (mut line, mut column) = self.chunk.start();
        if start > 0 {
            let before = &self.chunk.text[..start];
            line = self.chunk.line + before.matches('\n').count();
            column = start - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
        } else if let Some(place) = self.place(path) {
            (line, column) = (self.chunk.line + place.0 - 1, place.1);
        }
        Position { file: self.file.to_owned(), line, column }
    }

    /// Line and column of `path` in the document.
    fn place(&mut self, path: &[Segment]) -> Option<(usize, usize)> {
        let text = &self.chunk.text;
        match path {
            [] => None,
            [Segment::Key(_), Segment::Index(index)] => {
                let items = self.items.get_or_insert_with(|| locate::items(text));
                items.get(*index).copied().flatten()
            }
            deeper => self.places.get_or_insert_with(|| Places::read(text)).find(deeper),
        }
    }

    fn syntax_problem(&self, error: &serde_saphyr::Error) -> Problem {
        let (mut line, mut column) = self.chunk.start();
        if let Some(location) = error.location() {
            let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
            if location.line() > 0 {
                line = self.chunk.line.saturating_add(number(location.line()) - 1);
                column = number(location.column());
            }
        }
        // Without the place, which counts from the document's start; ours counts from the file's.
        let message = format!("not valid YAML: {}", UserMessageFormatter.format_message(error));
        Problem::Malformed {
            position: Position { file: self.file.to_owned(), line, column },
            message,
        }
    }
}

/// Every value of a text that is JSON throughout, with its offset; `None` if it is not, which
/// YAML's flow style may still be. JSON is read apart because YAML forbids its tabs, and because
/// kubectl reads values that follow each other with nothing between them.
fn json_stream(text: &str) -> Option<Vec<(Value, usize)>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut values = Vec::new();
    loop {
        let before = stream.byte_offset();
        match stream.next() {
            None => return Some(values),
            Some(Err(_)) => return None,
            // The first value's place is the document's own, which YAML's positions are for.
            Some(Ok(value)) if values.is_empty() => values.push((value, 0)),
            Some(Ok(value)) => {
                let blank = text[before..].len() - text[before..].trim_start().len();
                values.push((value, before + blank));
            }
        }
    }
}

/// What a List holds, and the type of its items where the List's own type tells it.
struct List {
    items: Vec<Value>,
    api_version: String,
    kind: Option<String>,
}

/// What a value is to [`DocumentReader::flatten`].
enum Shape {
    List(List),
    /// A `List` whose `items` cannot be one.
    Broken(Value),
    Single(Value),
}

/// A List is a `kind` that ends in `List` and has `items`, as for kubectl (apimachinery
/// `unstructured.IsList`).
fn shape(mut value: Value) -> Shape {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let Some(kind) = text("kind").strip_suffix("List").map(str::to_owned) else {
        return Shape::Single(value);
    };
    let api_version = text("apiVersion").to_owned();
    let kind = Some(kind).filter(|kind| !kind.is_empty());
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Shape::List(List { items, api_version, kind }),
        // `kubectl get` prints a List without objects as `items: null` or leaves it out.
        None | Some(Value::Null) => Shape::List(List { items: Vec::new(), api_version, kind }),
        Some(items) if kind.is_none() => Shape::Broken(items),
        // Another project's `AllowList`, say.
        Some(items) => {
            value["items"] = items;
            Shape::Single(value)
        }
    }
}
