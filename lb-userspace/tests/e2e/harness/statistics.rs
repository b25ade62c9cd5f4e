//! Is a spread over backends what chance gives?

/// Pearson's statistic of counts that should all be alike.
pub(crate) fn chi_square(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let (total, bins) = (total as f64, counts.len() as f64);
    let expected = total / bins;
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let squares = counts.iter().map(|count| (*count as f64 - expected).powi(2));
    squares.sum::<f64>() / expected
}

/// Panics when three counts are so uneven as chance makes them less than once in a million runs.
///
/// With three bins the statistic has two degrees of freedom, where P(X > x) = exp(-x / 2).
#[track_caller]
pub(crate) fn assert_even_thirds(what: &str, counts: [u64; 3]) {
    let threshold = 2.0 * 1e6_f64.ln();
    let statistic = chi_square(&counts);
    assert!(
        statistic < threshold,
        "{what}: {counts:?} are not spread evenly: chi-square {statistic:.1}, at most {threshold:.1}"
    );
}
