//! Standard output, and the forms in which objects are printed there.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::yaml;

/// Standard output, or a buffer in tests. Knows a reader that went away from every other failure.
pub(super) struct Out(Box<dyn Write>);

impl Out {
    pub(super) fn stdout() -> Self {
        Self(Box::new(BufWriter::new(Unlocked(io::stdout()))))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

/// Standard output without the line buffer of its lock held for long.
struct Unlocked(Stdout);

impl Write for Unlocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whoever read standard output has closed it.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
struct ReaderGone;

fn mark(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::other(ReaderGone) } else { error }
}

/// Whether a command broke off because nobody reads its output any more.
pub(super) fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<ReaderGone>())
            .is_some()
    })
}

/// Several objects as one, as `kubectl get -o yaml` wraps them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    api_version: &'static str,
    items: Vec<Arc<Value>>,
    kind: &'static str,
    metadata: Value,
}

impl List {
    pub(super) fn new(items: Vec<Arc<Value>>) -> Self {
        let metadata = json!({"resourceVersion": ""});
        Self { api_version: "v1", items, kind: "List", metadata }
    }
}

/// Prints JSON with kubectl's indentation.
pub(super) fn print_json(out: &mut Out, value: &impl Serialize) -> Result<()> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, formatter);
    value.serialize(&mut serializer)?;
    Ok(writeln!(out)?)
}

/// Prints one YAML document.
pub(super) fn print_yaml(out: &mut Out, value: &impl Serialize) -> Result<()> {
    let mut text = String::new();
    yaml::write(&mut text, &serde_json::to_value(value)?)?;
    Ok(out.write_all(text.as_bytes())?)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Collects what a command prints.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Captured(Rc<RefCell<Vec<u8>>>);

    impl Captured {
        pub(in crate::cli) fn out(&self) -> Out {
            Out(Box::new(self.clone()))
        }

        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).expect("UTF-8")
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_output_is_told_from_a_closed_socket() {
        let error = print_yaml(&mut Out(Box::new(Closed)), &json!({"a": 1})).expect_err("closed");
        assert!(reader_is_gone(&error.context("printing")));
        let socket = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!reader_is_gone(&socket));
    }
}
