//! Medians and percentiles, and how numbers are written.

/// The value that this share (in permille) of the values does not exceed; 0 of none.
pub(crate) fn quantile(values: &[f64], permille: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * permille.min(1000) / 1000)
        .copied()
        .unwrap_or(0.0)
}

/// The middle one, the mean of the two middle ones of an even count; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(below), Some(above)) if sorted.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(value)) => *value,
        (_, None) => 0.0,
    }
}

/// Microseconds with three significant digits, in the unit that reads best.
pub(crate) fn time(microseconds: f64) -> String {
    let (value, unit) = match microseconds {
        it if it >= 1e6 => (it / 1e6, "s"),
        it if it >= 1e3 => (it / 1e3, "ms"),
        it => (it, "µs"),
    };
    format!("{} {unit}", digits(value))
}

/// A count with three significant digits, thousands apart.
pub(crate) fn count(value: f64) -> String {
    let text = digits(value);
    match text.len() {
        4.. if !text.contains('.') => {
            let (head, tail) = text.split_at(text.len() - 3);
            format!("{head},{tail}")
        }
        _ => text,
    }
}

/// Bytes in megabytes of 10⁶.
pub(crate) fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// The median, and from which repeat to which.
pub(crate) fn spread(values: &[f64], write: fn(f64) -> String) -> String {
    let (least, most) = (quantile(values, 0), quantile(values, 1000));
    format!(
        "{} ({} to {})",
        write(median(values)),
        write(least),
        write(most)
    )
}

fn digits(value: f64) -> String {
    match value.abs() {
        it if it >= 99.95 => format!("{value:.0}"),
        it if it >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median(&[9.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 3.0, 4.0]), 3.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(quantile(&values, 990), 100.0);
        assert_eq!(quantile(&values, 1000), 101.0);
        assert_eq!(quantile(&values, 0), 1.0);
    }

    #[test]
    fn numbers_are_written_in_the_unit_that_reads_best() {
        assert_eq!(time(123.4), "123 µs");
        assert_eq!(time(12_340.0), "12.3 ms");
        assert_eq!(time(1_234_000.0), "1.23 s");
        assert_eq!(count(12_345.0), "12,345");
        assert_eq!(count(345.0), "345");
    }
}
