//! Which maps belong together: the hash in the name of their folder.

use lb_common::abi::layout;
use lb_common::path::{Operation, Reason};

use super::sizes::Sizes;

/// Names the layout of maps that this agent makes: sixteen hexadecimal digits, equal for two agents
/// exactly if one can go on with the other's maps.
pub(super) fn name(sizes: &Sizes) -> String {
    let mut hash = layout::TYPES;
    // `STATS` has a counter for each pair.
    for operation in Operation::ALL {
        hash = hash.text(operation.name());
    }
    for reason in Reason::ALL {
        hash = hash.text(reason.name());
    }
    for (name, entries) in sizes.iter() {
        hash = hash.text(name).number(entries.into());
    }
    // As many entries may be tables of another size.
    hash = hash.text("MAGLEV_SIZE").number(sizes.maglev.into());
    format!("{:016x}", hash.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_makes_a_layout_of_its_own() {
        let usual = name(&Sizes::default());
        assert_eq!(usual.len(), 16, "{usual}");
        assert_eq!(usual, name(&Sizes::default()), "the same every time");
        for word in
            ["RUNS=1024", "ORIGIN=1024", "FRONTENDS=1024", "MAGLEV=16", "SOURCE_RANGES=1024"]
        {
            let size = word.parse().expect("a size");
            let other = name(&Sizes::choose([size]).expect("one"));
            assert_ne!(other, usual, "{word}");
        }
        assert_ne!(name(&Sizes::default().with_maglev(251)), usual, "the size of tables");
    }
}
