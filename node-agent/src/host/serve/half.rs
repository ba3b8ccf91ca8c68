//! 16-bit floating point, from and to f32: Rust has no stable type for either.

/// Rounds to the nearest IEEE binary16, ties to even.
pub(super) fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude >= 0x7f80_0000 {
        let quiet = if magnitude > 0x7f80_0000 { 0x200 } else { 0 };
        return sign | 0x7c00 | quiet;
    }
    // 65520 and more round to infinity.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Subnormal: adding 0.5 aligns the bits that remain, and the addition rounds.
        let rounded = f32::from_bits(magnitude) + 0.5;
        return sign | (rounded.to_bits() - 0.5f32.to_bits()) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude - (112 << 23) + 0xfff + odd;
    sign | (rounded >> 13) as u16
}

/// The exact value of an IEEE binary16.
pub(super) fn f16_value(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let mantissa = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => (mantissa as f32 * 2f32.powi(-24)).to_bits(),
        31 => 0x7f80_0000 | (mantissa << 13),
        _ => ((exponent + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// Rounds to the nearest bfloat16, ties to even.
pub(super) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The exact value of a bfloat16.
pub(super) fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_from_its_own_value() {
        for bits in 0..=u16::MAX {
            let (f16, bf16) = (f16_value(bits), bf16_value(bits));
            assert!(f16.is_nan() || f16_bits(f16) == bits, "{bits:#x}");
            assert!(bf16.is_nan() || bf16_bits(bf16) == bits, "{bits:#x}");
            assert_eq!(f16.is_nan(), f16_value(f16_bits(f16)).is_nan());
        }
    }

    proptest::proptest! {
        #[test]
        fn rounding_takes_the_nearest(value in -70000f32..70000f32) {
            let got = f16_value(f16_bits(value));
            for neighbour in [f16_bits(value).wrapping_add(1), f16_bits(value).wrapping_sub(1)] {
                let other = f16_value(neighbour);
                if other.is_finite() && got.is_finite() {
                    proptest::prop_assert!((f64::from(got) - f64::from(value)).abs() <= (f64::from(other) - f64::from(value)).abs());
                }
            }
        }
    }

    #[test]
    fn known_values_have_known_bits() {
        for (value, bits) in [
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (65520.0, 0x7c00),
            (5.960_464_5e-8, 1),
            (0.0, 0),
        ] {
            assert_eq!(f16_bits(value), bits, "{value}");
        }
        assert_eq!(bf16_bits(1.0), 0x3f80);
    }
}
