//! Pure: checks a batch of digit images and turns pixels into what the model was trained on.

/// Height and width of an image, as scikit-learn's digits have them.
pub const SIDE: usize = 8;

/// Pixels of one image.
pub const IMAGE_PIXELS: usize = SIDE * SIDE;

/// The brightest pixel: the scans count ink in 4x4 cells, 0 to 16.
pub const PIXEL_MAX: u8 = 16;

/// Gives the number of images in a tensor of this shape: `[N, 8, 8]` or `[8, 8]` for one alone.
///
/// # Errors
/// Says which shape it got and which it takes.
pub fn batch_size(shape: &[u32]) -> Result<u32, String> {
    const SIDE_U32: u32 = SIDE as u32;
    match *shape {
        [SIDE_U32, SIDE_U32] => Ok(1),
        [0, SIDE_U32, SIDE_U32] => Err("shape [0,8,8] holds no image".to_owned()),
        [images, SIDE_U32, SIDE_U32] => Ok(images),
        _ => Err(format!("shape is {shape:?}, but [N,8,8] is needed")),
    }
}

/// Checks that every pixel is on the scale 0 to 16.
///
/// # Errors
/// Names the first pixel that is not: its image, row and column, and its value.
pub fn check_scale(pixels: &[u8]) -> Result<(), String> {
    match pixels.iter().position(|&pixel| pixel > PIXEL_MAX) {
        None => Ok(()),
        Some(at) => {
            let (image, row, column) = (at / IMAGE_PIXELS, at % IMAGE_PIXELS / SIDE, at % SIDE);
            let value = pixels[at];
            Err(format!(
                "pixel [{image},{row},{column}] is {value}, but pixels are 0 to {PIXEL_MAX}"
            ))
        }
    }
}

/// Scales pixels by `1 / white` to little-endian FP32 bytes, ready for `wasi:nn`.
///
/// With `white` = 16 every result is exact. The model takes 0.0 to 1.0.
#[must_use]
pub fn normalise(pixels: &[u8], white: f32) -> Vec<u8> {
    pixels
        .iter()
        .flat_map(|&pixel| (f32::from(pixel) / white).to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_n_by_8_by_8_and_a_lone_image_may_leave_n_out() {
        assert_eq!(batch_size(&[8, 8]), Ok(1));
        assert_eq!(batch_size(&[1, 8, 8]), Ok(1));
        assert_eq!(batch_size(&[360, 8, 8]), Ok(360));
    }

    #[test]
    fn another_shape_is_refused_by_name() {
        for shape in [
            &[][..],
            &[64],
            &[1, 64],
            &[8, 9],
            &[1, 8, 9],
            &[1, 1, 8, 8],
            &[0, 8, 8],
        ] {
            let error = batch_size(shape).unwrap_err();
            let name = format!("{shape:?}").replace(' ', "");
            assert!(error.replace(' ', "").contains(&name), "{error}");
        }
    }

    #[test]
    fn the_first_pixel_off_the_scale_is_named() {
        let mut pixels = vec![16; 3 * IMAGE_PIXELS];
        assert_eq!(check_scale(&pixels), Ok(()));
        pixels[2 * IMAGE_PIXELS + 5 * SIDE + 7] = 17;
        let error = check_scale(&pixels).unwrap_err();
        assert_eq!(error, "pixel [2,5,7] is 17, but pixels are 0 to 16");
    }

    #[test]
    fn pixels_are_scaled_to_one_exactly() {
        let expected: Vec<u8> = [0.0f32, 0.0625, 0.5, 1.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(normalise(&[0, 1, 8, 16], f32::from(PIXEL_MAX)), expected);
    }
}
