//! Manifests given by `-f`: files, folders, standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::object::{Document, Key, Kind, Problem, decode};
use crate::source::{is_manifest, object_json, read_bounded};

/// One document on its way to the agent.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The object as JSON, with its namespace as the person means it.
    pub(super) object: Value,
    /// Its identity.
    pub(super) key: Key,
    /// `file:line`
    pub(super) position: String,
}

/// What a set of manifests holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    /// What can be sent.
    pub(super) items: Vec<Item>,
    /// What cannot, and why.
    pub(super) errors: Vec<String>,
    /// What is worth saying.
    pub(super) warnings: Vec<String>,
}

/// Reads every document of every path. Bad ones never hide good ones; a path that cannot be read at all
/// is an error by itself, as it is in kubectl.
pub(super) fn read(paths: &[PathBuf], namespace: Option<&str>, strict: bool) -> Result<Input> {
    let mut input = Input::default();
    for path in paths {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
            input.add(&bytes, "-", namespace, strict);
        } else if path.is_dir() {
            for file in manifests_in(path)? {
                input.add_file(&file, namespace, strict)?;
            }
        } else {
            ensure!(path.exists(), "the path \"{}\" does not exist", path.display());
            input.add_file(path, namespace, strict)?;
        }
    }
    Ok(input)
}

/// The paths as they were given, for a message.
pub(super) fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The manifests of a folder in the order of their names; not those of folders within.
fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if is_manifest(&path) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} holds no *.yaml, *.yml or *.json file", folder.display());
    }
    files.sort();
    Ok(files)
}

impl Input {
    fn add_file(&mut self, path: &Path, namespace: Option<&str>, strict: bool) -> Result<()> {
        let bytes =
            read_bounded(path).with_context(|| format!("{} cannot be read", path.display()))?;
        self.add(&bytes, &path.display().to_string(), namespace, strict);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8], file: &str, namespace: Option<&str>, strict: bool) {
        for decoded in decode(bytes, file) {
            match decoded {
                Ok(document) => self.add_document(&document, namespace, strict),
                Err(problem @ Problem::Unserved { .. }) if !strict => {
                    self.warnings.push(problem.to_string());
                }
                Err(problem) => self.errors.push(problem.to_string()),
            }
        }
    }

    fn add_document(&mut self, document: &Document, namespace: Option<&str>, strict: bool) {
        let position = format!("{}:{}", document.position.file, document.position.line);
        if strict && !document.warnings.is_empty() {
            let warnings = document.warnings.iter().map(|warning| at(&position, warning));
            self.errors.extend(warnings);
            return;
        }
        self.warnings.extend(document.warnings.iter().map(|warning| at(&position, warning)));
        let mut object = match object_json(&document.object) {
            Ok(object) => object,
            Err(error) => return self.errors.push(at(&position, &error.to_string())),
        };
        match place(&mut object, namespace) {
            Ok(key) => self.items.push(Item { object, key, position }),
            Err(error) => self.errors.push(at(&position, &error.to_string())),
        }
    }
}

/// Puts the position before a message that does not carry it yet.
fn at(position: &str, message: &str) -> String {
    if message.starts_with(position) {
        message.to_owned()
    } else {
        format!("{position}: {message}")
    }
}

/// Gives the object the namespace of `-n`, and tells its identity.
fn place(object: &mut Value, namespace: Option<&str>) -> Result<Key> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = Kind::of(&word(&object["apiVersion"]), &word(&object["kind"]))
        .context("not an object that lb serves")?;
    let name = word(&object["metadata"]["name"]);
    if !kind.namespaced() {
        return Ok(Key::new(kind, "", &name));
    }
    let own = word(&object["metadata"]["namespace"]);
    match namespace {
        Some(wanted) if own.is_empty() => object["metadata"]["namespace"] = wanted.into(),
        Some(wanted) if wanted != own => bail!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{wanted}\"; \
             pass --namespace={own} to perform this operation"
        ),
        _ => {}
    }
    let effective = if own.is_empty() { namespace.unwrap_or("default") } else { &own };
    Ok(Key::new(kind, effective, &name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: Option<&str>) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": namespace}})
    }

    #[test]
    fn a_namespace_comes_from_the_object_then_the_flag_then_default() {
        for (own, flag, expected) in [
            (None, None, "default"),
            (None, Some("x"), "x"),
            (Some("x"), Some("x"), "x"),
            (Some("y"), None, "y"),
        ] {
            let key = place(&mut service(own), flag).expect("agreed");
            assert_eq!(&*key.namespace, expected, "{own:?} {flag:?}");
        }
        let error = place(&mut service(Some("y")), Some("x")).expect_err("contradiction");
        assert!(error.to_string().contains("--namespace=y"), "{error}");
    }

    #[test]
    fn a_node_has_no_namespace() {
        let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
        assert_eq!(place(&mut node, Some("x")).expect("fine"), Key::new(Kind::Node, "", "n"));
        assert!(node["metadata"].get("namespace").is_none());
    }

    #[test]
    fn a_folder_gives_its_manifests_by_name_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["b.yml", "a.yaml", "c.json", ".hidden.yaml", "notes.txt", "d.yaml~"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        fs::create_dir(folder.path().join("e.yaml")).expect("made");
        let names: Vec<_> = manifests_in(folder.path())
            .expect("readable")
            .iter()
            .map(|path| path.file_name().expect("named").to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["a.yaml", "b.yml", "c.json"]);
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        let error = read(&["/nowhere/x.yaml".into()], None, false).expect_err("missing");
        assert!(error.to_string().contains("/nowhere/x.yaml"), "{error}");
    }
}
