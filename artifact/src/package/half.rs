//! 16-bit floating point, IEEE 754 binary16 and bfloat16: Rust has no stable type for either.

/// A format's width of the stored significand, in bits, and its exponent bias.
struct Format {
    significand: i32,
    bias: i32,
}

const F16: Format = Format {
    significand: 10,
    bias: 15,
};
const BF16: Format = Format {
    significand: 7,
    bias: 127,
};

/// Rounds to the nearest IEEE binary16, ties to even; too large becomes infinity.
#[must_use]
pub fn f16_bits(value: f64) -> u16 {
    F16.round(value)
}

/// Rounds to the nearest bfloat16, ties to even; too large becomes infinity.
#[must_use]
pub fn bf16_bits(value: f64) -> u16 {
    BF16.round(value)
}

/// The exact value of an IEEE binary16.
#[must_use]
pub fn f16_value(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let mantissa = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => (f32::from(bits & 0x3ff) * 2f32.powi(-24)).to_bits(),
        31 => 0x7f80_0000 | (mantissa << 13),
        _ => ((exponent + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// The exact value of a bfloat16.
#[must_use]
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

impl Format {
    /// Straight from 64 bits: rounding to 32 bits first would round twice, and ties could fall the wrong way.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the steps are at most 2^(significand + 1), the result at most the infinity of 15 bits"
    )]
    fn round(&self, value: f64) -> u16 {
        let sign = u16::from(value.is_sign_negative()) << 15;
        let infinity = i64::from(2 * self.bias + 1) << self.significand;
        let magnitude = value.abs();
        if !magnitude.is_finite() {
            let quiet = i64::from(magnitude.is_nan()) << (self.significand - 1);
            return sign | (infinity | quiet) as u16;
        }
        // Below the least normal number the steps between numbers stay as they are there: subnormal numbers.
        let least = 1 - self.bias;
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(least);
        let steps = magnitude / 2f64.powi(exponent - self.significand);
        // A normal number's steps hold its implicit bit, which counts the exponent up by the one that is
        // missing here; steps that round up to the next power carry into the exponent in the same way.
        let bits =
            (i64::from(exponent - least) << self.significand) + steps.round_ties_even() as i64;
        sign | bits.min(infinity) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_from_its_own_value() {
        for bits in 0..=u16::MAX {
            let (f16, bf16) = (f16_value(bits), bf16_value(bits));
            assert!(f16.is_nan() || f16_bits(f16.into()) == bits, "{bits:#x}");
            assert!(bf16.is_nan() || bf16_bits(bf16.into()) == bits, "{bits:#x}");
            assert_eq!(f16.is_nan(), f16_value(f16_bits(f16.into())).is_nan());
            assert_eq!(bf16.is_nan(), bf16_value(bf16_bits(bf16.into())).is_nan());
        }
    }

    proptest::proptest! {
        #[test]
        fn rounding_takes_the_nearest(value in -70000f64..70000f64) {
            for (round, read) in [
                (f16_bits as fn(f64) -> u16, f16_value as fn(u16) -> f32),
                (bf16_bits, bf16_value),
            ] {
                let bits = round(value);
                let distance = |bits: u16| (f64::from(read(bits)) - value).abs();
                for neighbour in [bits.wrapping_add(1), bits.wrapping_sub(1)] {
                    if read(neighbour).is_finite() && read(bits).is_finite() {
                        proptest::prop_assert!(distance(bits) <= distance(neighbour));
                    }
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
            (65519.9, 0x7bff),
            (65520.0, 0x7c00),
            (1e300, 0x7c00),
            (f64::NEG_INFINITY, 0xfc00),
            (5.960_464_477_539_063e-8, 1),
            (1e-300, 0),
            (-0.0, 0x8000),
            // A tie goes to even, and what is just above it up, which rounding by way of 32 bits would miss.
            (1.0 + 2f64.powi(-11), 0x3c00),
            (1.0 + 2f64.powi(-11) + 2f64.powi(-40), 0x3c01),
        ] {
            assert_eq!(f16_bits(value), bits, "{value}");
        }
        for (value, bits) in [
            (1.0, 0x3f80),
            (3.4e38, 0x7f80),
            (1e39, 0x7f80),
            (1.0 + 2f64.powi(-8), 0x3f80),
            (1.0 + 2f64.powi(-8) + 2f64.powi(-40), 0x3f81),
        ] {
            assert_eq!(bf16_bits(value), bits, "{value}");
        }
    }
}
