//! A file's text to its documents, before any of them is parsed: a document that is not YAML then
//! cannot hide its neighbours. YAML 1.2.2, section 9.1.2: a line that starts with `---` or `...`
//! ends a document wherever it stands, even in a block scalar, so no parser is needed to find it.

use std::borrow::Cow;

/// The text of one document, and the line of the file on which it starts (from 1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) line: usize,
    pub(super) text: Cow<'a, str>,
}

impl Chunk<'_> {
    /// Line and column in the file of the first character that is not blank or a comment.
    pub(super) fn start(&self) -> (usize, usize) {
        let first = self.text.lines().enumerate().find(|(_, line)| has_content(line));
        let (offset, line) = first.unwrap_or_default();
        (self.line + offset, line.len() - line.trim_start().len() + 1)
    }
}

/// The documents of `text` that hold anything; empty and comment-only ones are left out.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut offset, mut number) = (0, 1);
    for line in text.split_inclusive('\n') {
        let end = offset + line.len();
        if let Some(marker) = marker(line) {
            push(&mut chunks, start_line, &text[start..offset]);
            // What follows `---` on its line belongs to the next document; `...` ends the line.
            (start, start_line) = match marker {
                Marker::Start => (offset, number),
                Marker::End => (end, number + 1),
            };
        }
        (offset, number) = (end, number + 1);
    }
    push(&mut chunks, start_line, &text[start..]);
    chunks
}

enum Marker {
    Start,
    End,
}

fn marker(line: &str) -> Option<Marker> {
    let separated = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    if line.strip_prefix("---").is_some_and(separated) {
        Some(Marker::Start)
    } else if line.strip_prefix("...").is_some_and(separated) {
        Some(Marker::End)
    } else {
        None
    }
}

fn push<'a>(chunks: &mut Vec<Chunk<'a>>, line: usize, text: &'a str) {
    // Blanks in place of the marker keep the columns of what follows it.
    let text = match text.strip_prefix("---") {
        Some(rest) if marker(text).is_some() => Cow::Owned(format!("   {rest}")),
        Some(_) | None => Cow::Borrowed(text),
    };
    if text.lines().any(has_content) {
        chunks.push(Chunk { line, text });
    }
}

/// Directives (`%YAML 1.2`) stand before a `---` and change nothing for Kubernetes' manifests.
fn has_content(line: &str) -> bool {
    let trimmed = line.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    !trimmed.is_empty() && !trimmed.starts_with('#') && !line.starts_with('%')
}
