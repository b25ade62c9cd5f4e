//! Field paths, and the place in the text where a field stands.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// One step of a field path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

/// `spec.ports[0].port`, as Kubernetes' `field.Path` prints it.
pub(super) fn display(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
            Segment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}

/// Where everything of one document stands. Built only when something has to be said about it.
pub(super) struct Places(Option<Spanned<Tree>>);

impl Places {
    /// Reads the positions in `text`, which has been parsed before; nowhere if that fails now.
    pub(super) fn read(text: &str) -> Self {
        Self(serde_saphyr::from_str_with_options(text, super::decode::options()).ok())
    }

    /// Line and column, from 1, of the value at `path` or of its nearest parent that has one.
    pub(super) fn find(&self, path: &[Segment]) -> Option<(usize, usize)> {
        let mut node = self.0.as_ref()?;
        let mut place = position(node);
        for segment in path {
            let child = match (&node.value, segment) {
                (Tree::Map(children), Segment::Key(key)) => children.get(key),
                (Tree::Seq(children), Segment::Index(index)) => children.get(*index),
                (Tree::Map(_) | Tree::Seq(_) | Tree::Leaf, _) => None,
            };
            let Some(child) = child else { break };
            node = child;
            place = position(node).or(place);
        }
        place
    }
}

/// Line and column of each item of the List that `text` is. Much cheaper than [`Places`].
pub(super) fn items(text: &str) -> Vec<Option<(usize, usize)>> {
    #[derive(serde::Deserialize)]
    struct List {
        items: Vec<Spanned<IgnoredAny>>,
    }
    let list = serde_saphyr::from_str_with_options::<List>(text, super::decode::options());
    list.map(|list| list.items.iter().map(position).collect()).unwrap_or_default()
}

fn position<T>(node: &Spanned<T>) -> Option<(usize, usize)> {
    let line = usize::try_from(node.referenced.line()).ok().filter(|line| *line > 0)?;
    Some((line, usize::try_from(node.referenced.column()).ok()?))
}

/// A document's shape without its scalars.
enum Tree {
    Map(BTreeMap<String, Spanned<Tree>>),
    Seq(Vec<Spanned<Tree>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut children = BTreeMap::new();
        while let Some((key, child)) = map.next_entry()? {
            children.insert(key, child);
        }
        Ok(Tree::Map(children))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut children = Vec::new();
        while let Some(child) = seq.next_element()? {
            children.push(child);
        }
        Ok(Tree::Seq(children))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }
}
