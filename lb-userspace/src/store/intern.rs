//! One copy of every text that many objects repeat: namespaces, nodes, labels.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Label pairs, sorted by key.
pub(super) type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// Hands out shared copies. What nobody uses any more is dropped as the set grows.
#[derive(Debug, Default)]
pub(super) struct Interner {
    words: BTreeSet<Arc<str>>,
    labels: BTreeSet<Labels>,
    sweep_at: usize,
}

/// Below this many entries a sweep saves nothing worth its time.
const SWEEP_FLOOR: usize = 1024;

impl Interner {
    /// The shared copy of `text`.
    pub(super) fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(word) = self.words.get(text) {
            return Arc::clone(word);
        }
        self.sweep();
        let word: Arc<str> = text.into();
        self.words.insert(Arc::clone(&word));
        word
    }

    /// The shared copy of a set of labels, or of a selector.
    pub(super) fn labels<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Labels {
        let mut labels: Vec<_> =
            pairs.into_iter().map(|(key, value)| (self.word(key), self.word(value))).collect();
        labels.sort_unstable();
        let labels: Labels = labels.into();
        match self.labels.get(&labels) {
            Some(known) => Arc::clone(known),
            None => {
                self.labels.insert(Arc::clone(&labels));
                labels
            }
        }
    }

    /// Drops what only this set still holds, whenever it has doubled since the last time: a cost
    /// that is constant per insertion over time.
    fn sweep(&mut self) {
        if self.words.len() + self.labels.len() < self.sweep_at.max(SWEEP_FLOOR) {
            return;
        }
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.words.retain(|word| Arc::strong_count(word) > 1);
        self.sweep_at = 2 * (self.words.len() + self.labels.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.word("node-1"), &interner.word("node-1")));
        let pairs = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())];
        let one = interner.labels(pairs.iter().map(|(k, v)| (k, v)));
        let other = interner.labels(pairs.iter().rev().map(|(k, v)| (k, v)));
        assert!(Arc::ptr_eq(&one, &other), "order of writing does not matter");
    }

    #[test]
    fn forgotten_texts_do_not_pile_up() {
        let mut interner = Interner::default();
        let kept = interner.word("kept");
        for i in 0..100_000 {
            interner.word(&format!("passing-{i}"));
        }
        assert!(interner.words.len() <= SWEEP_FLOOR + 1, "{} words left", interner.words.len());
        assert!(Arc::ptr_eq(&kept, &interner.word("kept")));
    }
}
