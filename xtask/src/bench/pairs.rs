//! Sides that take turns, A B A B, so that what else happens on the machine meets all alike; and what is made of
//! the numbers: medians, spreads, and the ratio within each pair.

use anyhow::{Result, ensure};

use crate::progress::Steps;

/// Who is measured, where two are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// lb.
    Subject,
    /// What lb is compared with.
    Reference,
}

impl Side {
    /// In the order of a pair.
    pub(super) const BOTH: [Self; 2] = [Self::Subject, Self::Reference];
}

/// What a scenario found.
pub(super) struct Comparison {
    /// The scenario's name.
    pub(super) scenario: &'static str,
    /// Name and version of what lb was compared with.
    pub(super) reference: String,
    /// What was held equal, and what the numbers mean: one sentence each.
    pub(super) conditions: Vec<String>,
    /// What was measured.
    pub(super) rows: Vec<Row>,
}

/// One quantity, measured on both sides as often as there were pairs.
pub(super) struct Row {
    /// What was done, such as `A, through the ClusterIP`.
    pub(super) case: String,
    /// What was measured, with its unit.
    pub(super) quantity: String,
    /// lb's numbers and the other's, one of each for each pair.
    pub(super) pairs: Vec<[f64; 2]>,
    /// What the median ratio should be.
    pub(super) goal: Option<Goal>,
}

/// What the ratio of lb to the reference should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// Where more is better.
    AtLeast(f64),
    /// Where less is better.
    AtMost(f64),
}

impl Goal {
    /// Whether a ratio meets it.
    pub(super) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

/// The middle of some numbers, and their extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The least.
    pub(super) least: f64,
    /// The median: of an even number, the mean of the middle two.
    pub(super) median: f64,
    /// The greatest.
    pub(super) greatest: f64,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(&least), Some(&greatest)) = (sorted.first(), sorted.last()) else {
            return Self { least: f64::NAN, median: f64::NAN, greatest: f64::NAN };
        };
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Self { least, median, greatest }
    }
}

impl Row {
    /// lb's numbers.
    pub(super) fn subject(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|pair| pair[0]))
    }

    /// The reference's numbers.
    pub(super) fn reference(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|pair| pair[1]))
    }

    /// lb's number divided by the reference's, within each pair.
    pub(super) fn ratio(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|[subject, reference]| subject / reference))
    }
}

/// Measures these sides in turns, `rounds` times. `measure` returns one number for each quantity, always in the same
/// order; what comes back is, for each quantity, the rounds, and in each of them a number for every side.
pub(super) fn alternate<S: Copy, const SIDES: usize>(
    sides: [S; SIDES],
    rounds: usize,
    case: &str,
    steps: &Steps,
    mut measure: impl FnMut(S) -> Result<Vec<f64>>,
) -> Result<Vec<Vec<[f64; SIDES]>>> {
    let mut quantities: Vec<Vec<[f64; SIDES]>> = Vec::new();
    for number in 1..=rounds {
        steps.next(&format!("{case}: round {number} of {rounds}"));
        let mut round = sides.map(|_| Vec::new());
        for (numbers, side) in round.iter_mut().zip(sides) {
            *numbers = measure(side)?;
        }
        let count = round.first().map_or(0, Vec::len);
        let agree = round.iter().all(|numbers| numbers.len() == count);
        ensure!(agree, "{case}: the sides have other quantities");
        quantities.resize(count, Vec::new());
        for (index, quantity) in quantities.iter_mut().enumerate() {
            quantity.push(round.each_ref().map(|numbers| numbers[index]));
        }
    }
    Ok(quantities)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[[f64; 2]]) -> Row {
        Row { case: String::new(), quantity: String::new(), pairs: pairs.to_vec(), goal: None }
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        let odd = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!(odd, Spread { least: 1.0, median: 2.0, greatest: 3.0 });
        assert!((Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()).median - 2.5).abs() < 1e-9);
        assert!(Spread::of(std::iter::empty()).median.is_nan());
    }

    #[test]
    fn a_ratio_is_taken_within_a_pair_so_that_a_slow_minute_counts_for_both() {
        let row = row(&[[50.0, 100.0], [5.0, 10.0], [60.0, 100.0]]);
        assert_eq!(row.ratio(), Spread { least: 0.5, median: 0.5, greatest: 0.6 });
    }

    #[test]
    fn the_sides_take_turns_and_lb_begins() {
        let mut order = Vec::new();
        let quantities = alternate(Side::BOTH, 2, "case", &Steps::new(2), |side| {
            order.push(side);
            Ok(vec![1.0, if side == Side::Subject { 2.0 } else { 3.0 }])
        })
        .expect("nothing fails");
        assert_eq!(order, [Side::Subject, Side::Reference, Side::Subject, Side::Reference]);
        assert_eq!(quantities, [[[1.0, 1.0], [1.0, 1.0]], [[2.0, 3.0], [2.0, 3.0]]]);
    }

    #[test]
    fn a_goal_looks_into_the_direction_that_is_better() {
        assert!(Goal::AtLeast(0.5).is_met(0.7) && !Goal::AtLeast(0.5).is_met(0.4));
        assert!(Goal::AtMost(1.0).is_met(0.9) && !Goal::AtMost(1.0).is_met(1.1));
    }
}
