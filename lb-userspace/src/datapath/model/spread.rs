//! `MAGLEV` with what it names at hand: readers may look at any slot at any moment.

use std::collections::BTreeMap;

/// A table and a slot of it.
type Place = (u32, u32);

/// Tables of backend ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::datapath) struct Spread {
    slots: BTreeMap<Place, u32>,
    /// How many slots of a table name a backend.
    named: BTreeMap<(u32, u32), u32>,
}

impl Spread {
    /// Writes a slot of a table of `size` slots; whether the table names other backends than before.
    pub(super) fn store(&mut self, place: Place, size: u32, id: u32) -> bool {
        let (table, _) = place;
        if !self.slots.contains_key(&place) {
            self.slots.extend((0..size).map(|slot| ((table, slot), 0)));
            self.named.insert((table, 0), size);
        }
        let former = self.slots.insert(place, id);
        let count = self.named.entry((table, id)).or_default();
        *count += 1;
        let came = *count == 1;
        let went = former.is_some_and(|former| self.forget((table, former)));
        came || went
    }

    /// What a slot holds; as the map is made, 0.
    pub(super) fn entry(&self, place: Place) -> u32 {
        self.slots.get(&place).copied().unwrap_or_default()
    }

    /// The backends that a table names; as the map is made, 0.
    pub(in crate::datapath) fn named(&self, table: u32) -> impl Iterator<Item = u32> {
        let untouched = !self.slots.contains_key(&(table, 0));
        let named = self.named.range((table, 0)..=(table, u32::MAX)).map(|((_, id), _)| *id);
        named.chain(untouched.then_some(0))
    }

    fn forget(&mut self, named: (u32, u32)) -> bool {
        let count = self.named.get_mut(&named).expect("a slot has named it");
        *count -= 1;
        let went = *count == 0;
        if went {
            self.named.remove(&named);
        }
        went
    }
}
