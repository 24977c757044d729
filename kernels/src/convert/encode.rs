//! Values as the bytes of a tensor's element.

/// How an element type writes a value.
pub(crate) trait Encode<const BYTES: usize> {
    /// The value in native byte order. It is finite and within the type's range, but for `u8`, which clamps.
    fn encode(value: f32) -> [u8; BYTES];
}

pub(crate) struct AsF32;
pub(crate) struct AsF16;
pub(crate) struct AsU8;

impl Encode<4> for AsF32 {
    #[inline(always)]
    fn encode(value: f32) -> [u8; 4] {
        value.to_ne_bytes()
    }
}

impl Encode<2> for AsF16 {
    /// To the nearest, ties to even. No branch, so that the compiler can do eight at a time.
    #[inline(always)]
    fn encode(value: f32) -> [u8; 2] {
        let bits = value.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        // normal numbers: exponent bias 127 -> 15, 23 -> 10 bits of mantissa; adding just under half of the last kept
        // bit, and that bit itself, rounds ties to even, and a carry walks into the exponent as it should
        let kept = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + kept) >> 13;
        // below 2^-14, the smallest normal f16: 0.5 has steps of 2^-24, as subnormal f16 have, so adding it lets the
        // adder do the rounding
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let half = if magnitude < (113 << 23) { subnormal } else { normal };
        ((sign | half) as u16).to_ne_bytes()
    }
}

impl Encode<1> for AsU8 {
    /// To the nearest, ties to even, clamped.
    #[inline(always)]
    fn encode(value: f32) -> [u8; 1] {
        let value = if value < 0.0 { 0.0 } else { value };
        let value = if value > 255.0 { 255.0 } else { value };
        // at 2^23 an f32 has steps of one: the adder rounds, and the low byte is the integer
        [(value + 8_388_608.0).to_bits() as u8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of f16 bits, from the definition of the format.
    fn half(bits: u16) -> f64 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        match exponent {
            0 => sign * mantissa * 2f64.powi(-24),
            e => sign * (1.0 + mantissa / 1024.0) * 2f64.powi(e - 15),
        }
    }

    #[test]
    fn every_finite_half_and_every_middle_between_two_is_rounded_right() {
        for bits in 0..0x7c00u16 {
            let value = half(bits);
            assert_eq!(AsF16::encode(value as f32), bits.to_ne_bytes(), "{value}");
            assert_eq!(AsF16::encode(-value as f32), (bits | 0x8000).to_ne_bytes(), "-{value}");
            if bits < 0x7bff {
                let middle = ((value + half(bits + 1)) / 2.0) as f32;
                let even = bits + (bits & 1);
                assert_eq!(AsF16::encode(middle), even.to_ne_bytes(), "tie {middle}");
                assert_eq!(AsF16::encode(middle.next_down()), bits.to_ne_bytes(), "below {middle}");
                assert_eq!(AsF16::encode(middle.next_up()), (bits + 1).to_ne_bytes(), "above {middle}");
            }
        }
    }

    #[test]
    fn bytes_are_rounded_to_the_nearest_and_clamped() {
        for whole in 0..=255u8 {
            let value = f32::from(whole);
            assert_eq!(AsU8::encode(value), [whole]);
            assert_eq!(AsU8::encode((value + 0.499).min(255.0)), [whole]);
            assert_eq!(AsU8::encode((value - 0.499).max(0.0)), [whole]);
        }
        assert_eq!([AsU8::encode(-3.0), AsU8::encode(256.0), AsU8::encode(1e9)], [[0], [255], [255]]);
    }
}
