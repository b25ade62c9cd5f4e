//! How many entries the tables have: `--map-size`.

use std::collections::BTreeMap;

use lb_common::abi::{Run, entries};
use lb_common::maglev;

/// A table whose size can be chosen.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    default: u32,
    smallest: u32,
    largest: u32,
    /// No change can take more than that at once.
    at_once: u32,
    power_of_two: bool,
}

/// Small enough for tests and toys, large enough for the agent's own self-test.
const SMALLEST: u32 = 16;
/// Entries of more than that would take gigabytes.
const LARGEST: u32 = 1 << 24;

const fn table(name: &'static str, default: u32) -> Table {
    Table {
        name,
        default,
        smallest: SMALLEST,
        largest: LARGEST,
        at_once: LARGEST,
        power_of_two: false,
    }
}

/// Every such table.
pub(super) const TABLES: [Table; 9] = [
    table("FRONTENDS", entries::FRONTENDS),
    table("SERVICES", entries::SERVICES),
    Table { largest: Run::MAX_SLOTS, at_once: Run::MAX_COUNT, ..table("RUNS", entries::RUNS) },
    table("BACKENDS", entries::BACKENDS),
    table("AFFINITY", entries::AFFINITY),
    table("FLOWS", entries::FLOWS),
    Table { largest: MOST_TABLES, ..table(MAGLEV, entries::MAGLEV) },
    table("SOURCE_RANGES", entries::SOURCE_RANGES),
    Table { power_of_two: true, ..table(ORIGIN, entries::ORIGIN) },
];

/// Consists of tables, which have a size of their own.
pub(super) const MAGLEV: &str = "MAGLEV";
/// More than that would take gigabytes.
const MOST_TABLES: u32 = 1 << 14;

/// Its programs find a slot by a mask, which follows its size.
pub(super) const ORIGIN: &str = "ORIGIN";

/// The size of every table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    chosen: BTreeMap<&'static str, u32>,
    /// Slots of each table of `MAGLEV`.
    pub(super) maglev: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        let chosen = TABLES.iter().map(|table| (table.name, table.default)).collect();
        Self { chosen, maglev: maglev::DEFAULT_SIZE }
    }
}

impl Sizes {
    /// The sizes with some of them chosen.
    ///
    /// # Errors
    ///
    /// If a table is named twice.
    pub fn choose(chosen: impl IntoIterator<Item = Size>) -> Result<Self, String> {
        let mut sizes = BTreeMap::new();
        for Size { name, entries } in chosen {
            if sizes.insert(name, entries).is_some() {
                return Err(format!("{name} has two sizes"));
            }
        }
        let mut all = Self::default();
        all.chosen.append(&mut sizes);
        Ok(all)
    }

    /// With tables of `MAGLEV` that have so many slots each, one of [`maglev::SIZES`].
    #[must_use]
    pub fn with_maglev(self, size: u32) -> Self {
        Self { maglev: size, ..self }
    }

    /// Entries of the table of this name; of `MAGLEV`, tables.
    pub(super) fn of(&self, name: &str) -> u32 {
        self.chosen[name]
    }

    /// Every map's name and its entries, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.chosen.iter().map(|(&name, &entries)| {
            // The largest of both fit.
            (name, if name == MAGLEV { entries * self.maglev } else { entries })
        })
    }
}

/// One word of `--map-size`: `NAME=ENTRIES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    name: &'static str,
    entries: u32,
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let names = || TABLES.map(|table| table.name).join(", ");
        let (name, number) = word.split_once('=').ok_or("not of the form RUNS=1048576")?;
        let table = TABLES.iter().find(|table| table.name == name).ok_or_else(|| {
            format!("there is no map {name} with a size to choose; there are {}", names())
        })?;
        let entries: u32 =
            number.parse().map_err(|_| format!("{number} is no number of entries"))?;
        table.check(entries)?;
        Ok(Self { name: table.name, entries })
    }
}

impl Table {
    fn check(&self, entries: u32) -> Result<(), String> {
        let Self { name, smallest, largest, .. } = self;
        if entries < *smallest || entries > *largest {
            return Err(format!("{name} can have {smallest} to {largest} entries, not {entries}"));
        }
        if self.power_of_two && !entries.is_power_of_two() {
            return Err(format!(
                "{name} needs a power of two, such as {}",
                entries.next_power_of_two().min(*largest)
            ));
        }
        Ok(())
    }
}

/// What to do about a table of `capacity` entries in which `needed` more are wanted and `free` are
/// left.
pub(super) fn remedy(name: &str, capacity: u32, needed: usize, free: u32) -> String {
    let Some(table) = TABLES.iter().find(|table| table.name == name) else { return String::new() };
    let least = capacity as usize - free as usize + needed;
    let size = least.max(2 * capacity as usize).next_power_of_two().min(table.largest as usize);
    if needed > table.at_once as usize {
        format!("one change can take {} at most", table.at_once)
    } else if least > size || size <= capacity as usize {
        format!("it can have {} at most", table.largest)
    } else {
        format!("restart the agent with --map-size {name}={size}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_keep_the_rules() {
        for table in TABLES {
            assert_eq!(table.check(table.default), Ok(()));
        }
        let largest = maglev::SIZES.into_iter().max().expect("there are some");
        assert!(MOST_TABLES.checked_mul(largest).is_some(), "a map counts its entries in 32 bits");
    }

    #[test]
    fn what_is_not_chosen_stays() {
        let chosen = ["RUNS=1048576", "ORIGIN=1024"].map(|word| word.parse().expect("a size"));
        let sizes = Sizes::choose(chosen).expect("each once");
        assert_eq!((sizes.of("RUNS"), sizes.of("ORIGIN")), (1_048_576, 1024));
        assert_eq!(sizes.of("SERVICES"), entries::SERVICES);
        let twice = ["RUNS=64", "RUNS=128"].map(|word| word.parse().expect("a size"));
        assert_eq!(Sizes::choose(twice), Err("RUNS has two sizes".to_owned()));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_with_the_remedy() {
        for (word, remedy) in [
            ("RUNS", "RUNS=1048576"),
            ("STATS=5", "there are FRONTENDS, SERVICES"),
            ("RUNS=many", "many is no number"),
            ("RUNS=0", "16 to 16777216"),
            ("RUNS=16777217", "16 to 16777216"),
            ("ORIGIN=1000", "a power of two, such as 1024"),
        ] {
            let error = word.parse::<Size>().expect_err(word);
            assert!(error.contains(remedy), "{word}: {error}");
        }
    }

    #[test]
    fn the_remedy_is_a_size_that_suffices_and_is_allowed() {
        let cases = [
            (("RUNS", 1000, 1, 0), "--map-size RUNS=2048"),
            (("RUNS", 1024, 10_000, 24), "--map-size RUNS=16384"),
            (("RUNS", LARGEST - 1, 1, 0), "--map-size RUNS=16777216"),
            (("RUNS", LARGEST, 1, 0), "it can have 16777216 at most"),
            (("RUNS", 1024, 1 << 20, 0), "one change can take 1048575 at most"),
            (("BACKENDS", 1 << 23, LARGEST as usize, 0), "it can have 16777216 at most"),
        ];
        for ((name, capacity, needed, free), expected) in cases {
            let said = remedy(name, capacity, needed, free);
            assert!(said.contains(expected), "{name} of {capacity}: {said}");
        }
    }
}
