//! Pure: turns the model's probabilities into labels.

/// Digits that the model tells apart.
pub const CLASSES: usize = 10;

/// Gives the most probable class of each row as little-endian INT64 bytes; of equals, the lowest.
///
/// # Errors
/// Says what is wrong where the bytes are not `images` rows of ten FP32 values, or a row holds a
/// value that is not a number: a broken model must not pass for an answer.
pub fn most_probable(probabilities: &[u8], images: usize) -> Result<Vec<u8>, String> {
    let (rows, rest) = probabilities.as_chunks::<{ 4 * CLASSES }>();
    if rows.len() != images || !rest.is_empty() {
        return Err(format!(
            "the model gave {} bytes of probabilities for {images} images, expected {}",
            probabilities.len(),
            images.saturating_mul(4 * CLASSES)
        ));
    }
    let mut labels = Vec::with_capacity(8 * images);
    for (image, row) in rows.iter().enumerate() {
        let mut best = (0i64, f32::NEG_INFINITY);
        for (class, bytes) in (0i64..).zip(row.as_chunks::<4>().0) {
            let probability = f32::from_le_bytes(*bytes);
            if probability.is_nan() {
                return Err(format!(
                    "the model gave NaN for class {class} of image {image}"
                ));
            }
            if probability > best.1 {
                best = (class, probability);
            }
        }
        labels.extend_from_slice(&best.0.to_le_bytes());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(rows: &[[f32; CLASSES]]) -> Vec<u8> {
        rows.iter()
            .flatten()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn peak(class: usize) -> [f32; CLASSES] {
        let mut row = [0.01; CLASSES];
        row[class] = 0.91;
        row
    }

    #[test]
    fn each_row_gets_its_most_probable_class() {
        let labels = most_probable(&bytes(&[peak(7), peak(0), peak(9)]), 3).unwrap();
        assert_eq!(labels, [7i64, 0, 9].map(i64::to_le_bytes).concat());
    }

    #[test]
    fn of_equal_classes_the_lowest_wins() {
        let labels = most_probable(&bytes(&[[0.1; CLASSES]]), 1).unwrap();
        assert_eq!(labels, 0i64.to_le_bytes());
    }

    #[test]
    fn a_missing_row_or_a_ragged_one_is_an_error() {
        let two = bytes(&[peak(1), peak(2)]);
        assert!(most_probable(&two, 3).is_err());
        assert!(most_probable(&two[..79], 2).is_err());
        assert!(most_probable(&[&two[..], &[0]].concat(), 2).is_err());
        assert!(most_probable(&two[..40], 2).is_err());
    }

    #[test]
    fn a_probability_that_is_not_a_number_is_an_error() {
        let mut row = peak(4);
        row[6] = f32::NAN;
        let error = most_probable(&bytes(&[peak(1), row]), 2).unwrap_err();
        assert_eq!(error, "the model gave NaN for class 6 of image 1");
    }
}
